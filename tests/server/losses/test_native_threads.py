"""Native rows on several threads: the same bits, as many threads as allowed, no one left behind."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest

from losswire.server.catalogue.closed_form import ClosedForm, Options, RowBlock
from losswire.server.catalogue.record import Reduction
from losswire.server.compute import thresholds
from losswire.server.compute.native.binding import AVAILABLE
from losswire.server.compute.native.rows import compute_rows
from losswire.server.compute.paths import native_form
from losswire.server.compute.work import Work
from losswire.server.losses import builtin_registry
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.validate import validate
from tests.support.caller import Array, Ask
from tests.support.exact import same_bits
from tests.support.sampling import generator

needs_library = pytest.mark.skipif(not AVAILABLE, reason="compiled where there was no compiler")

_RECORD = builtin_registry().find("cross_entropy")


@pytest.fixture(autouse=True)
def _few_bytes_are_enough_for_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "THREAD_BYTES", 1)


def _work(logits: Array, target: Array, **fields: object) -> Work:
    ask = Ask(
        loss="cross_entropy",
        inputs={"input": logits, "target": target},
        gradients_for=("input",),
        engine="auto",
    )
    return validate(decode(replace(ask, **fields).message()), _RECORD)  # type: ignore[arg-type]


def _form(work: Work) -> ClosedForm:
    form = native_form(work)
    assert form is not None
    return form


@dataclass(frozen=True)
class _Rows:
    """Stands for a loss in C++."""

    compute: Callable[[RowBlock], float]

    def rows(self, block: RowBlock) -> float:
        return self.compute(block)

    def fits(self, inputs: Mapping[str, Array], options: Options) -> bool:
        del inputs, options
        return True


def _form_by(work: Work, rows: Callable[[RowBlock], float]) -> ClosedForm:
    """Return the form with other code for its rows."""
    return replace(_form(work), native=_Rows(rows))


@needs_library
@pytest.mark.parametrize("factored", [False, True])
def test_the_number_of_threads_changes_no_bit(*, factored: bool) -> None:
    """Values, gradients and factors, rows removed and ignored; sums to the last place."""
    rng = generator("threads")
    logits = rng.standard_normal((53, 19)).astype(np.float32)
    target = rng.integers(0, 19, 53)
    target[::7] = -100
    weight = rng.uniform(0.5, 2.0, 53).astype(np.float32)
    weight[::5] = 0
    for reduction in (Reduction.MEAN, Reduction.NONE):
        for given in (None, weight):
            output = rng.standard_normal(53 if reduction is Reduction.NONE else ())
            work = _work(
                logits,
                target,
                reduction=reduction,
                sample_weight=given,
                grad_output=np.asarray(output, np.float32),
            )
            work = replace(work, factored=factored)
            alone = compute_rows(_form(work), work, 1)
            for threads in (2, 3, 60):
                found = compute_rows(_form(work), work, threads)
                assert same_bits(found.loss, alone.loss)
                assert found.sum == pytest.approx(alone.sum, rel=1e-15)
                for name, gradient in alone.gradients.items():
                    assert same_bits(found.gradients[name], gradient)
                for name, factors in alone.factors.items():
                    for one, other in zip(found.factors[name], factors, strict=True):
                        assert same_bits(one.numpy(), other.numpy())


@needs_library
def test_infinities_of_both_signs_may_meet() -> None:
    """Each thread has one; their sum is NaN, and no error."""
    logits = np.array([[0.0, -np.inf], [-np.inf, 0.0]])
    work = _work(logits, np.array([1, 0]), reduction=Reduction.SUM)
    weighted = replace(work, inputs={**work.inputs, "weight": np.array([1.0, -1.0])})
    assert np.isnan(compute_rows(_form(weighted), weighted, 2).loss)
    huge = np.array([[0.0, -1.5e308], [-1.5e308, 0.0]])
    work = _work(huge, np.array([1, 0]), reduction=Reduction.SUM)
    assert np.isposinf(compute_rows(_form(work), work, 2).loss)


def test_all_threads_have_ended_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that they write to may be freed afterwards."""
    monkeypatch.setattr("losswire.server.compute.native.binding.AVAILABLE", True)
    ended: list[int] = []

    def rows(block: RowBlock) -> float:
        row = int(block.inputs["target"][0])
        if row != 1:
            if row != 0:
                time.sleep(0.2)
            ended.append(row)
            return 0.0
        raise MemoryError

    work = _work(np.zeros((4, 4), np.float32), np.arange(4))
    with pytest.raises(MemoryError):
        compute_rows(_form_by(work, rows), work, 4)
    assert sorted(ended) == [0, 2, 3]


def test_the_first_share_waits_for_the_others_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calling thread computes it, and must not raise before the others end."""
    monkeypatch.setattr("losswire.server.compute.native.binding.AVAILABLE", True)
    ended: list[int] = []

    def rows(block: RowBlock) -> float:
        row = int(block.inputs["target"][0])
        if row == 0:
            raise MemoryError
        time.sleep(0.1)
        ended.append(row)
        return 0.0

    work = _work(np.zeros((3, 3), np.float32), np.arange(3))
    with pytest.raises(MemoryError):
        compute_rows(_form_by(work, rows), work, 3)
    assert sorted(ended) == [1, 2]


def test_there_are_never_more_threads_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of shares, the same ones take them; the one that asks is one of them."""
    monkeypatch.setattr("losswire.server.compute.native.binding.AVAILABLE", True)
    seen: set[threading.Thread] = set()

    for count in (2, 3, 4, 9):
        together = threading.Barrier(min(count, 4))

        def rows(block: RowBlock, together: threading.Barrier = together) -> float:
            del block
            seen.add(threading.current_thread())
            together.wait(60)
            return 0.0

        work = _work(np.zeros((count, 3), np.float32), np.arange(count) % 3)
        compute_rows(_form_by(work, rows), work, 4)
    names = {each.name for each in seen - {threading.current_thread()}}
    assert threading.current_thread() in seen
    assert len(seen) == 4
    assert names == {f"losswire-rows_{number}" for number in range(3)}
