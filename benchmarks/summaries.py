"""A summary of many rows beside one chunked evaluation of them: `python -m benchmarks.summaries`.

Both send the same rows over TCP on the loopback interface, by turns; the summary also has a table
of slices and worst rows. It speaks the contract, as the huge call does.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from benchmarks.processes import Server
from losswire.client import Client
from losswire.v1 import loss_service_pb2, summary_pb2
from losswire.wire import attach, bytes_of, encode_spec, encode_tensor

Array = npt.NDArray[Any]

_TIMEOUT = 300.0
_METHOD = "/losswire.v1.LossService/SummarizeLosses"
_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
_LOSS = "cross_entropy"
_SERVER = ("serve", "--listen", "127.0.0.1:0", "--region-quota-mib", "0")


class Rows:
    """Logits, classes, and the slice of each row."""

    def __init__(self, rows: int, columns: int, slices: int) -> None:
        """Draw them."""
        rng = np.random.default_rng(1)
        self.logits = rng.standard_normal((rows, columns), np.float32)
        self.classes = rng.integers(0, columns, rows)
        self.slices = rng.integers(0, slices, rows, np.uint8)
        self.labels = [f"slice {number}" for number in range(slices)]


def _summarize(address: str, rows: Rows, batch_bytes: int, worst: int) -> Callable[[], float]:
    """Return a call that summarizes all rows and returns their mean."""
    row_bytes = rows.logits[0].nbytes + rows.classes.itemsize
    step = batch_bytes // row_bytes
    channel = grpc.insecure_channel(address, _OPTIONS)
    method: Any = channel.stream_stream(
        _METHOD, response_deserializer=loss_service_pb2.SummarizeLossesResponse.FromString
    )

    def requests() -> Iterator[bytes]:
        header = loss_service_pb2.SummarizeLossesRequest()
        header.header.evaluation.loss = _LOSS
        header.header.worst = worst
        header.header.tables.add(columns=["slice"])
        yield header.SerializeToString()
        for start in range(0, len(rows.logits), step):
            arrays: dict[str, Array] = {"input": rows.logits[start : start + step]}
            arrays["target"] = rows.classes[start : start + step]
            column = summary_pb2.Column(
                codes=encode_tensor(rows.slices[start : start + step]), labels=rows.labels
            )
            batch = summary_pb2.SummaryBatch(
                inputs={name: encode_spec(each) for name, each in arrays.items()},
                columns={"slice": column},
            )
            message = loss_service_pb2.SummarizeLossesRequest(batch=batch)
            elements = {f'batch.inputs["{name}"]': bytes_of(a) for name, a in arrays.items()}
            yield b"".join(attach(message, elements))

    def call() -> float:
        *_, last = method(requests(), timeout=_TIMEOUT)
        [total] = last.report.summary.total.distributions
        return float(total.mean_numerator / total.mean_denominator)

    return call


def _evaluate(address: str, rows: Rows) -> Callable[[], float]:
    """Return a chunked call that evaluates all rows and returns their mean."""
    client = Client(address, timeout=_TIMEOUT)

    def call() -> float:
        inputs: dict[str, Array] = {"input": rows.logits, "target": rows.classes}
        result = client.evaluate(_LOSS, inputs)
        return result.mean_numerator / result.mean_denominator

    return call


def main() -> None:
    """Measure by turns and print rows per second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--worst", type=int, default=20)
    parser.add_argument("--batch-bytes", type=int, default=1 << 20)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rows = Rows(given.rows, given.columns, given.slices)
    with Server("losswire.server", *_SERVER) as server:
        calls = {
            "evaluate": _evaluate(server.address, rows),
            "summarize": _summarize(server.address, rows, given.batch_bytes, given.worst),
        }
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(given.rounds + 1):
            for name, call in calls.items():
                begun, used = time.perf_counter(), server.cpu_seconds + time.process_time()
                mean = call()
                seconds[name].append(time.perf_counter() - begun)
                used = server.cpu_seconds + time.process_time() - used
                print(f"{name:10} {seconds[name][-1]:.2f} s, {used:.2f} s of CPU, mean {mean:.15g}")
        peak = server.peak_bytes / 2**20
    best = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    for name, each in best.items():
        print(f"{name:10} {given.rows / each / 1e6:.2f} million rows/s")
    print(f"ratio {best['evaluate'] / best['summarize']:.2f}, peak memory {peak:.0f} MiB")


if __name__ == "__main__":
    main()
