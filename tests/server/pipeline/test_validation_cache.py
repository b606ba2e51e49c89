"""What was validated before: only what the numbers can break is checked again."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from losswire.server.catalogue.record import LossRecord
from losswire.server.compute.work import Work
from losswire.server.errors import InvalidEvaluationError
from losswire.server.losses import builtin_registry
from losswire.server.pipeline import validation_cache as cache_module
from losswire.server.pipeline.decode import Request, decode
from losswire.server.pipeline.validate import validate
from losswire.server.pipeline.validation_cache import ValidationCache
from losswire.v1 import evaluation_pb2
from tests.support.requests import evaluation, f32

_REGISTRY = builtin_registry()


def _checked(cache: ValidationCache, message: evaluation_pb2.Evaluation) -> Work:
    return cache.validate(decode(message), _REGISTRY.find(message.loss))


def _pair(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    return {"input": np.ones(shape, dtype), "target": np.zeros(shape, dtype)}


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The losses of what was validated in full."""
    seen: list[str] = []

    def spy(request: Request, record: LossRecord) -> Work:
        seen.append(record.name)
        return validate(request, record)

    monkeypatch.setattr(cache_module, "validate", spy)
    return seen


def test_a_form_is_validated_once(validated: list[str]) -> None:
    """What comes later has its own numbers and everything else of the first."""
    cache = ValidationCache()
    first = _checked(cache, evaluation("mse_loss", _pair(3)))
    numbers = {"input": f32(1, 2, 3), "target": f32(4, 5, 6)}
    second = _checked(cache, evaluation("mse_loss", numbers))
    assert validated == ["mse_loss"]
    assert first.skeleton is second.skeleton is not None
    np.testing.assert_equal(second.inputs, numbers)
    assert (second.layout, second.bindings, second.options) == (
        first.layout,
        first.bindings,
        first.options,
    )


_BASE: dict[str, Any] = {"loss": "smooth_l1_loss", "inputs": _pair(3), "options": {"beta": 1.0}}
_OTHERS: dict[str, dict[str, Any]] = {
    "another loss": {"loss": "huber_loss", "options": {"delta": 1.0}},
    "another shape": {"inputs": _pair(4)},
    "as many elements": {"inputs": _pair(3, 1)},
    "another type": {"inputs": _pair(3, dtype="float64")},
    "no option": {"options": {}},
    "another option": {"options": {"beta": 0.5}},
    "an option of another kind": {"options": {"beta": 1}},
    "another zero": {"options": {"beta": -0.0}},
    "another reduction": {"reduction": evaluation_pb2.REDUCTION_SUM},
    "a gradient": {"gradients_for": ["input"]},
    "a factor": {"gradients_for": ["input"], "grad_output": np.float32(2)},
    "a wider factor": {"gradients_for": ["input"], "grad_output": np.float64(2)},
    "a weight": {"sample_weight": f32(1, 2, 3)},
    "a normalizer": {"normalizer": 2.0},
    "another gradient type": {"gradient_data_type": 10},
    "another compute type": {"compute_data_type": 10},
    "another engine": {"engine": evaluation_pb2.ENGINE_AUTOGRAD},
}


@pytest.mark.parametrize("change", _OTHERS.values(), ids=_OTHERS.keys())
def test_another_form_is_validated_by_itself(validated: list[str], change: dict[str, Any]) -> None:
    """Nothing of a form is taken for that of another."""
    cache = ValidationCache()
    _checked(cache, evaluation(**_BASE))
    other = evaluation(**(_BASE | change))
    found = _checked(cache, other)
    assert len(validated) == 2
    exact = validate(decode(other), _REGISTRY.find(other.loss))
    for field in ("options", "reduction", "values_shape", "compute_dtype", "normalizer", "engine"):
        assert getattr(found, field) == getattr(exact, field)
        assert repr(getattr(found, field)) == repr(getattr(exact, field))


def test_zeros_of_both_signs_are_two_options(validated: list[str]) -> None:
    """0.0 and -0.0 are equal, and divide to infinities of either sign."""
    cache = ValidationCache()
    for beta in (0.0, -0.0, 0.0):
        work = _checked(cache, evaluation("smooth_l1_loss", _pair(3), {"beta": beta}))
        assert repr(work.options["beta"]) == repr(beta)
    assert len(validated) == 2


@pytest.mark.parametrize("target", [[0, 5], [-1, 0], [0, 2**40]])
def test_values_are_validated_each_time(target: list[int]) -> None:
    """A known form does not make wrong numbers right: they are refused with the same words."""
    cache = ValidationCache()
    good = {"input": np.zeros((2, 5), np.float32), "target": np.array([0, 4])}
    bad = evaluation("cross_entropy", good | {"target": np.array(target)})
    with pytest.raises(InvalidEvaluationError) as first:
        _checked(cache, bad)
    _checked(cache, evaluation("cross_entropy", good))
    with pytest.raises(InvalidEvaluationError) as later:
        _checked(cache, bad)
    assert later.value.violations == first.value.violations
    assert later.value.violations[0].field == 'inputs["target"]'


def test_wrong_forms_are_not_remembered(validated: list[str]) -> None:
    """What was refused is refused again, in full."""
    cache = ValidationCache()
    for _ in range(2):
        with pytest.raises(InvalidEvaluationError):
            _checked(cache, evaluation("mse_loss", {"input": f32(1), "target": f32(1, 2)}))
    assert len(validated) == 2


def test_a_form_keeps_no_array() -> None:
    """Once an evaluation is over, its arrays are free."""
    cache = ValidationCache()
    fields: dict[str, Any] = {
        "gradients_for": ["input"],
        "sample_weight": f32(1, 2, 3),
        "reduction": 1,
    }
    work = _checked(cache, evaluation("mse_loss", _pair(3), grad_output=f32(1, 2, 3), **fields))
    arrays = [*work.inputs.values(), work.grad_output, work.sample_weight]
    watched = [weakref.ref(each) for each in arrays]
    del work, arrays
    gc.collect()
    assert [each() for each in watched] == [None] * 4


def test_forms_are_bounded(validated: list[str]) -> None:
    """Who changes shapes all the time makes the server forget cache, not grow."""
    cache = ValidationCache(max_entries=4)
    for length in range(1, 12):
        _checked(cache, evaluation("mse_loss", _pair(length)))
        assert len(cache) <= 4
    assert len(validated) == 11
