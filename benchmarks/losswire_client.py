"""The caller of Losswire: `losswire_client [--kept] ADDRESS`. Uses its public API alone."""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import data
from benchmarks.compute_bound import ComputeBound
from benchmarks.huge import Huge
from benchmarks.processes import Process
from benchmarks.threads import run_in_threads
from benchmarks.worker import NotServedError, Spec, Timing, Work, WrongResultError, serve, timed
from losswire.client import (
    AsyncClient,
    Client,
    Evaluation,
    EvaluationResult,
    InvalidArgumentError,
    LosswireError,
    UnimplementedError,
    keep_large_blocks,
)

Array = npt.NDArray[Any]

_TIMEOUT = 120.0
_FEW = 20
"""After this number of calls, the SDK has chosen its fastest transport."""
_OTHERS = 2
"""The callers of large evaluations beside small ones."""
_BUSY = 4
"""Processes that burn processor time: as many threads as two callers and the server keep busy."""
_SLACK = 1 << 20
"""Room in a region beside the two arrays, for their alignment."""


class Evaluate(Work):
    """One call of `Client.evaluate` after another."""

    def __init__(self, address: str, spec: Spec) -> None:
        """Connect and make the arrays."""
        self._spec = spec
        self._address = address
        self._client = Client(address, timeout=_TIMEOUT)
        self._logits = data.logits(spec.rows, spec.columns, spec.dtype)
        self._target = data.target(spec.loss, spec.rows, spec.columns)
        self._gradients = ("input",) if spec.gradients else ()
        self._out = {"input": np.empty_like(self._logits)} if spec.out else None

    def call(self) -> EvaluationResult:
        """Evaluate."""
        return self._client.evaluate(
            self._spec.loss,
            {"input": self._logits, "target": self._target},
            gradients=self._gradients,
            gradient_form="factored" if self._spec.form == "factored" else "dense",
            out=self._out,
        )

    def run(self, count: int) -> Timing:
        """Make a number of calls, from a number of threads."""
        if self._spec.callers == 1:
            return super().run(count)
        return run_in_threads(self.call, self._spec.callers, count)

    def check(self) -> str:
        """Compare with float64, and see which way the tensors went."""
        result = self._first_result()
        # Servers and SDKs before same-host regions do not say.
        transport = getattr(result, "transport", "")
        text = self._compare(result)
        wanted = self._spec.transports
        if transport and wanted and transport not in wanted:
            message = f"the tensors went by {transport} instead of {' or '.join(wanted)}"
            raise WrongResultError(message)
        return f"{text}; by {transport}" if transport else text

    def _first_result(self) -> EvaluationResult:
        try:
            return self.call()
        except UnimplementedError as error:
            raise NotServedError(error.message) from error
        except InvalidArgumentError as error:
            if any("not served" in each.description for each in error.violations):
                raise NotServedError(error.message) from error
            raise

    def _compare(self, result: EvaluationResult) -> str:
        spec = self._spec
        gradient = self._gradient(result) if spec.gradients else None
        return data.check(spec, float(result.loss), gradient)

    def _gradient(self, result: EvaluationResult) -> Array:
        return result.gradients["input"]

    def _evaluation(self) -> Evaluation:
        return Evaluation(
            self._spec.loss,
            {"input": self._logits, "target": self._target},
            gradients=self._gradients,
        )


class Factored(Evaluate):
    """Factors come back, and the SDK rebuilds the gradient in the caller's array."""

    def _gradient(self, result: EvaluationResult) -> Array:
        if "input" not in result.gradients:
            raise NotServedError("the SDK does not rebuild factored gradients")
        return result.gradients["input"]


class Local(Evaluate):
    """Ordinary small arrays, which the SDK sends without gRPC once there are several."""

    def _first_result(self) -> EvaluationResult:
        for _ in range(_FEW):
            super()._first_result()
        return super()._first_result()


class Beside(Evaluate):
    """Small calls, while large ones of other processes are computed."""

    def __init__(self, address: str, spec: Spec) -> None:
        """Start the other processes, which wait."""
        super().__init__(address, spec)
        self._others = self._start_others()
        self._tell_others(None)

    def _start_others(self) -> list[Process]:
        arguments = [self._address, *map(str, self._spec.beside)]
        return [Process("benchmarks.beside", *arguments) for _ in range(_OTHERS)]

    def _tell_others(self, line: str | None) -> None:
        """Send the others a command, and wait for all answers."""
        for each in self._others:
            if line is not None:
                each.write_line(line)
        for each in self._others:
            each.read_line()

    def run(self, count: int) -> Timing:
        """Time small calls only."""
        self._tell_others("begin")
        try:
            return super().run(count)
        finally:
            self._tell_others("end")

    def close(self) -> None:
        """End the other processes."""
        for each in self._others:
            each.end()


class BesideBusy(Beside):
    """Small calls, while other processes burn processor time and do not call."""

    def _start_others(self) -> list[Process]:
        return [Process("benchmarks.busy") for _ in range(_BUSY)]


class Many(Evaluate):
    """One call of `Client.evaluate_many` after another."""

    def call(self) -> Any:  # noqa: ANN401 - a list here, a result there
        """Evaluate a batch of evaluations."""
        results = self._client.evaluate_many([self._evaluation() for _ in range(self._spec.batch)])
        return [_unwrap(each) for each in results]

    def _first_result(self) -> EvaluationResult:
        results = self.call()
        for each in results[1:]:
            self._compare(each)
        first: EvaluationResult = results[0]
        return first


class Stream(Evaluate):
    """Evaluations on one stream, each after the answer to the one before."""

    def _first_result(self) -> EvaluationResult:
        with self._client.stream() as stream:
            return stream.submit(self._evaluation()).result()

    def run(self, count: int) -> Timing:
        """Time evaluations; opening the stream is not part of them."""
        with self._client.stream() as stream:

            def call() -> Array:
                return stream.submit(self._evaluation()).result().gradients["input"]

            call()
            return timed(call, count)


class Pipelined(Stream):
    """Evaluations on one stream, many in flight; the time of one is its share of a batch's."""

    def run(self, count: int) -> Timing:
        """Time whole batches."""
        size = self._spec.batch
        calls = []
        with self._client.stream() as stream:
            stream.submit(self._evaluation()).result()
            for _ in range(max(1, count // size)):
                begin = time.perf_counter()
                evaluations = (self._evaluation() for _ in range(size))
                for outcome in stream.map(evaluations):
                    _unwrap(outcome)
                calls.append((time.perf_counter() - begin) / size)
        return Timing(calls, sum(calls) * size)


class AsyncStream(Evaluate):
    """The same as `Stream` in an asyncio program."""

    def _first_result(self) -> EvaluationResult:
        results: list[EvaluationResult] = []
        asyncio.run(self._run(1, results.append))
        return results[0]

    def run(self, count: int) -> Timing:
        """Time evaluations; opening the stream is not part of them."""
        return asyncio.run(self._run(count, lambda _: None))

    async def _run(self, count: int, take: Callable[[EvaluationResult], None]) -> Timing:
        clock, calls = time.perf_counter, []
        async with (
            AsyncClient(self._address, timeout=_TIMEOUT) as client,
            client.stream() as stream,
        ):
            take(await (await stream.submit(self._evaluation())))
            begin = clock()
            for _ in range(count):
                start = clock()
                result = await (await stream.submit(self._evaluation()))
                _gradient = result.gradients["input"]
                calls.append(clock() - start)
            return Timing(calls, clock() - begin)


class InPlace(Evaluate):
    """Tensors that are already in memory which the server reads and writes."""

    def __init__(self, address: str, spec: Spec) -> None:
        """Make the region and put the logits there."""
        super().__init__(address, spec)
        region_of = _require_regions(self._client)
        self._stack = ExitStack()
        try:
            region = self._stack.enter_context(region_of(2 * self._logits.nbytes + _SLACK))
        except UnimplementedError as error:
            raise NotServedError(error.message) from error
        self._source = self._logits
        self._logits = region.array(self._source.shape, self._source.dtype)
        self._logits[...] = self._source
        self._out = {"input": region.array(self._source.shape, self._source.dtype)}


class Copies(Evaluate):
    """Ordinary arrays, which the SDK copies into shared memory and out of it by itself."""

    def __init__(self, address: str, spec: Spec) -> None:
        """Check that the SDK supports it."""
        super().__init__(address, spec)
        _require_regions(self._client)


def _require_regions(client: Client) -> Any:  # noqa: ANN401 - an SDK without them has no type
    """Return the method that makes a region."""
    region_of = getattr(client, "region", None)
    if region_of is None:
        raise NotServedError("the SDK has no regions")
    return region_of


WORKS: dict[str, Callable[[str, Spec], Work]] = {
    "evaluate": Evaluate,
    "factored": Factored,
    "local": Local,
    "beside": Beside,
    "beside busy": BesideBusy,
    "many": Many,
    "stream": Stream,
    "pipelined": Pipelined,
    "async stream": AsyncStream,
    "in place": InPlace,
    "copies": Copies,
    "huge": Huge,
    "compute bound": ComputeBound,
}


def _unwrap(outcome: EvaluationResult | LosswireError) -> EvaluationResult:
    if isinstance(outcome, LosswireError):
        raise outcome
    return outcome


def _open(address: str, spec: Spec) -> Work:
    return WORKS[spec.work](address, spec)


def main() -> int:
    """Answer the benchmark's commands."""
    *flags, address = sys.argv[1:]
    if flags == ["--kept"] and not keep_large_blocks():
        raise SystemExit("this platform does not keep large blocks")
    return serve(partial(_open, address))


if __name__ == "__main__":
    sys.exit(main())
