"""Makes the conformance vectors of summaries, tests/conformance/summaries/, from their tables.

Nothing is asked of losswire.summaries: the expected values follow from definition.py, figures.py
and buckets.py, in exact arithmetic. `python -m tools.make_conformance` writes them.
"""

import json
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from losswire.v1 import summary_pb2
from tests.conformance.summaries import buckets
from tests.conformance.summaries.cases import CASES
from tests.conformance.summaries.figures import figures
from tests.conformance.summaries.refusals import REFUSALS

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "conformance" / "summaries"
_GENERATED = ("*.json", "buckets.bin", "vectors/*")


def write() -> None:
    """Write all files, and remove those that are no more."""
    files = build()
    for stale in set(present()) - set(files):
        (FOLDER / stale).unlink()
    for name, content in files.items():
        path = FOLDER / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    print(f"{len(CASES)} merges and {len(buckets.entries())} bucket indices in {FOLDER}")


def present() -> list[str]:
    """List the generated files that are in the folder now."""
    return sorted(
        path.relative_to(FOLDER).as_posix() for each in _GENERATED for path in FOLDER.glob(each)
    )


def build() -> dict[str, bytes]:
    """Make the content of every generated file, by its path in the folder."""
    files: dict[str, bytes] = {}
    merges: list[dict[str, Any]] = []
    said: dict[str, Any] = {}
    for case in CASES:
        inputs = [f"{case.name}.{at}" for at in range(1, len(case.shards) + 1)]
        merged = f"{case.name}.merged"
        for stem, message in zip((*inputs, merged), (*case.messages(), case.merged()), strict=True):
            files |= _message(stem, case.about, message)
        merges.append({"name": case.name, "about": case.about, "inputs": inputs, "merged": merged})
        said[case.name] = figures(case.plan, case.rows, case.scale)
    refusals: list[dict[str, Any]] = []
    for refusal in REFUSALS:
        files |= _message(refusal.name, refusal.about, refusal.other)
        refusals.append(
            {
                "name": refusal.name,
                "about": refusal.about,
                "inputs": [f"{refusal.first}.1", refusal.name],
                "named": list(refusal.named),
            }
        )
    files["index.json"] = _json({"merges": merges, "refusals": refusals}, indent=2)
    files["figures.json"] = _json(said, indent=1)
    files["buckets.json"] = ("[\n" + ",\n".join(buckets.lines()) + "\n]\n").encode()
    files["buckets.bin"] = buckets.binary()
    return files


def _json(content: object, indent: int) -> bytes:
    return (json.dumps(content, indent=indent, allow_nan=False) + "\n").encode()


def _message(stem: str, about: str, message: summary_pb2.LossSummary) -> dict[str, bytes]:
    head = (
        f"# proto-file: {message.DESCRIPTOR.file.name}\n"
        f"# proto-message: {message.DESCRIPTOR.full_name}\n"
        f"# {stem}. {about}\n\n"
    )
    return {
        f"vectors/{stem}.binpb": message.SerializeToString(deterministic=True),
        f"vectors/{stem}.textproto": (head + text_format.MessageToString(message)).encode(),
    }
