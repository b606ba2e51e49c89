"""Makes a run a row of the tables, and rows runs again."""

import hashlib
import time
import zlib

from losswire.server.errors import InvalidRunError
from losswire.server.runs import thresholds
from losswire.server.runs.checks import check_run
from losswire.server.runs.store import Row
from losswire.server.runs.summary_checks import check_summary, figures_of
from losswire.v1 import run_service_pb2
from losswire.wire import Violation


def row_of(run: run_service_pb2.Run, tenant: str) -> Row:
    """Check a run and return its row.

    Raises InvalidRunError with everything that is wrong.
    """
    kept = run_service_pb2.Run()
    kept.CopyFrom(run)
    # What the server sets is not the caller's, who may send a run as it came from another server.
    kept.ClearField("saved")
    kept.ClearField("creator")
    kept.ClearField("figures")
    kept.ClearField("loss")
    violations = list(check_run(kept))
    figures, wrong = _figures(kept)
    if violations or wrong:
        raise InvalidRunError([*violations, *wrong])
    content = kept.SerializeToString(deterministic=True)
    detail = run_service_pb2.Run(
        header=kept.header if kept.HasField("header") else None, summary=kept.summary
    )
    kept.ClearField("header")
    kept.ClearField("summary")
    saved_at = time.time_ns() // 1000
    kept.saved.FromMicroseconds(saved_at)
    kept.creator = tenant
    kept.loss = detail.summary.loss
    kept.figures.extend(figures)
    listing = kept.SerializeToString()
    return Row(
        run_id=kept.run_id,
        name=kept.name,
        loss=kept.loss,
        labels=dict(kept.labels),
        saved_at=saved_at,
        digest=hashlib.sha256(content).digest(),
        listing=listing,
        detail=zlib.compress(detail.SerializeToString(), thresholds.STORE_COMPRESSION),
        size_bytes=len(content) + len(listing),
    )


def whole_run(listing: bytes, detail: bytes) -> bytes:
    """Return the bytes of a run from the two parts that are kept of it."""
    # Bytes of a message that follow those of another merge the two.
    return listing + zlib.decompress(detail)


def _figures(
    run: run_service_pb2.Run,
) -> tuple[list[run_service_pb2.RunFigures], list[Violation]]:
    """Check the summary of a run; returns what a list shows of it, and what is wrong."""
    if not run.HasField("summary"):
        return [], [Violation("run.summary", "a run has a summary")]
    wrong = list(check_summary(run.summary))
    if wrong:
        return [], wrong
    try:
        return figures_of(run.summary), []
    except (ValueError, ArithmeticError, IndexError) as error:
        return [], [Violation("run.summary.total", f"no mean follows from it: {error}")]
