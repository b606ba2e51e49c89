"""linear_cross_entropy in tiles: torch's numbers, by each of the ways to cut the logits."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from losswire.server.catalogue.record import Reduction
from losswire.server.compute.closed_forms.projection import sizes_of
from losswire.server.compute.dispatch import Outcome, compute
from losswire.server.errors import OverLimitError
from losswire.server.memory.regions.places import Place
from losswire.server.pipeline.admit import demand, peak_bytes, reply_bytes
from losswire.v1 import evaluation_pb2
from tests.support.caller import Array, Ask
from tests.support.inside import Gate, running_evaluator
from tests.support.projection import CLASSES, DTYPES, ROWS, WAYS, ask_for, take, work_of
from tests.support.rounding import STATISTICAL_MARGIN, in_double, rms
from tests.support.sampling import generator

_CPU = torch.device("cpu")
_LAYOUTS = ("unbatched", "batched", "unbatched_probabilities", "probabilities")
_HEADS = {"unbatched": ((),), "unbatched_probabilities": ((),)}
_NEVER = float("inf")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The logits are cut in one of the ways."""
    take(request.param, monkeypatch)
    return str(request.param)


def _evaluate(ask: Ask) -> Outcome:
    return compute(work_of(ask), _CPU)


def _exactly(ask: Ask) -> Outcome:
    """Evaluate by torch, with all logits in float64."""
    inputs = in_double(ask.inputs)
    return _evaluate(replace(ask, inputs=inputs, gradient_dtype=None, engine="autograd"))


def _variants(layout: str, dtype: str) -> Iterator[Ask]:
    """Draw every option, reduction and way to weight values, not all of them together."""
    for heads in _HEADS.get(layout, ((), (3,), (2, 2))):
        plain = ask_for(layout, dtype, heads=heads, weight=False, bias=False)
        ask = ask_for(layout, dtype, heads=heads)
        smooth = ask_for(layout, dtype, heads=heads, smoothing=0.1, bias=False)
        rng = generator("variants", layout, dtype)
        shape = np.shape(_evaluate(replace(ask, reduction=Reduction.NONE, gradients_for=())).loss)
        weight = np.asarray(rng.uniform(0.5, 2.0, shape[:1])).astype(np.float32)
        if shape:
            weight[::4] = 0
        yield replace(plain, gradients_for=plain.gradients_for[:1])
        yield replace(plain, gradients_for=("linear_weight",), gradient_dtype="float32")
        yield replace(ask, reduction=Reduction.SUM, grad_output=np.array(2.5))
        yield replace(
            ask, reduction=Reduction.NONE, grad_output=np.asarray(rng.standard_normal(shape))
        )
        yield replace(ask, sample_weight=weight)
        yield replace(smooth, normalizer=3.0)
        yield replace(ask_for(layout, dtype, heads=heads, weight=False, smoothing=1.0))
        yield replace(ask, gradients_for=())


@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_torchs(way: str, layout: str, dtype: str) -> None:
    """Loss, sums and gradients are those of torch in float64, whatever is asked for."""
    del way
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    for ask in _variants(layout, dtype):
        found, exact = _evaluate(ask), _exactly(ask)
        assert found.engine == "closed_form"
        assert found.count == exact.count
        np.testing.assert_allclose(found.loss, exact.loss, tolerance, tolerance, err_msg=str(ask))
        for field in ("sum", "mean_numerator", "mean_denominator"):
            assert getattr(found, field) == pytest.approx(getattr(exact, field), rel=tolerance)
        assert tuple(found.gradients) == ask.gradients_for
        for name, wanted in exact.gradients.items():
            gradient = found.gradients[name]
            limits = torch.finfo(getattr(torch, gradient.dtype.name))
            bound = tolerance * np.abs(wanted).max() + limits.tiny * limits.eps
            np.testing.assert_allclose(
                gradient.astype(np.float64), wanted, limits.eps, bound, err_msg=f"{name} of {ask}"
            )


@pytest.mark.parametrize("layout", ["batched", "probabilities"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_errors_are_no_larger_than_torchs(way: str, layout: str, dtype: str) -> None:
    """By comparison with float64, values and gradients err no more than those of autograd."""
    del way
    squares: dict[str, list[tuple[float, float]]] = {}
    for classes in (150, 155, 161, 170):
        for smoothing in (0.0, 0.1):
            ask = ask_for(layout, dtype, classes=classes, smoothing=smoothing)
            kind = None if dtype == "float32" else "float32"
            ask = replace(ask, gradient_dtype=kind)
            values = replace(ask, reduction=Reduction.NONE, gradients_for=())
            for one in (ask, values):
                found, exact = _evaluate(one), _exactly(one)
                plain = _evaluate(replace(one, engine="autograd"))
                triples = {
                    name: (found.gradients[name], plain.gradients[name], exact.gradients[name])
                    for name in one.gradients_for
                }
                if one is values:
                    triples["values"] = (found.loss, plain.loss, exact.loss)
                for name, (ours, torchs, truth) in triples.items():
                    errors = rms(ours, truth) ** 2, rms(torchs, truth) ** 2
                    squares.setdefault(name, []).append(errors)
    for name, pairs in squares.items():
        ours, torchs = np.sqrt(np.mean(pairs, axis=0))
        assert ours <= torchs * STATISTICAL_MARGIN, name


def test_heads_of_few_classes_err_no_more_than_torchs() -> None:
    """Torch multiplies all heads at once, which adds up many rows in other parts."""
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        ask = Ask(
            loss="linear_cross_entropy",
            inputs={
                "input": rng.standard_normal((1030, 130)).astype(np.float32),
                "linear_weight": rng.standard_normal((7, 2, 130)).astype(np.float32) / 10,
                "target": rng.integers(0, 7, (1030, 2)),
            },
            gradients_for=("linear_weight",),
            engine="auto",
        )
        found, exact = _evaluate(ask), _exactly(ask)
        plain = _evaluate(replace(ask, engine="autograd"))
        truth = exact.gradients["linear_weight"]
        errors.append([rms(each.gradients["linear_weight"], truth) ** 2 for each in (found, plain)])
    ours, torchs = np.sqrt(np.mean(errors, axis=0))
    assert ours <= torchs * STATISTICAL_MARGIN


@pytest.mark.parametrize("heads", [(), (2,)])
@pytest.mark.parametrize("layout", ["batched", "probabilities"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_removed_rows_are_exactly_zero(
    way: str, layout: str, heads: tuple[int, ...], bad: float
) -> None:
    """A row of weight 0 or an ignored one gives 0 whatever it holds; the others keep their bits."""
    del way
    ask = ask_for(layout, heads=heads)
    weight = np.ones(ROWS, np.float32)
    weight[1::5] = 0
    removed = weight == 0
    if layout == "batched":
        removed[::5] = True  # ignored
    ask = replace(ask, sample_weight=weight)
    spoilt = dict(ask.inputs)
    spoilt["input"] = np.where(removed[:, np.newaxis], np.float32(bad), ask.inputs["input"])
    clean, found = _evaluate(ask), _evaluate(replace(ask, inputs=spoilt))
    assert (found.sum, found.count) == (clean.sum, clean.count)
    assert np.isfinite(found.sum)
    for name in ask.gradients_for:
        np.testing.assert_array_equal(found.gradients[name], clean.gradients[name])
    for name in {"input", "target"} & set(ask.gradients_for):
        assert not found.gradients[name][removed].any()


@pytest.mark.parametrize("layout", ["batched", "probabilities"])
def test_a_removed_row_is_zero_beside_a_head_that_is_not_finite(way: str, layout: str) -> None:
    """0 times NaN is NaN: gradients of removed rows are selected, not multiplied."""
    del way
    ask = ask_for(layout, bias=False)
    head = ask.inputs["linear_weight"].copy()
    head[100, 3] = np.nan
    weight = np.zeros(ROWS, np.float32)
    ask = replace(
        ask,
        inputs={**ask.inputs, "linear_weight": head},
        reduction=Reduction.SUM,
        sample_weight=weight,
    )
    found = _evaluate(ask)
    assert (float(found.loss), found.count) == (0.0, 0)
    for name in ask.gradients_for:
        assert not found.gradients[name].any(), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", ["batched", "probabilities"])
@pytest.mark.parametrize("masked", [slice(0, 50), slice(40, 150, 3), slice(120, 150)])
def test_masked_classes_add_nothing(way: str, layout: str, dtype: str, masked: slice) -> None:
    """A bias of -inf takes classes out: the result is that of the head without them."""
    del way
    ask = ask_for(layout, dtype, weight=False)
    kept = np.ones(CLASSES, bool)
    kept[masked] = False
    inputs = {name: each.copy() for name, each in ask.inputs.items()}
    inputs["linear_bias"][~kept] = -np.inf
    fewer = {name: each[kept] for name, each in inputs.items() if name.startswith("linear")}
    fewer["input"] = inputs["input"]
    if layout == "batched":
        inputs["target"] = np.flatnonzero(kept)[inputs["target"] % kept.sum()]
        fewer["target"] = (np.cumsum(kept) - 1)[inputs["target"]]
    else:
        inputs["target"][:, ~kept] = 0
        fewer["target"] = inputs["target"][:, kept]
    gradients = ("input", "linear_weight", "linear_bias")
    options = {"label_smoothing": 0.0}
    ask = replace(ask, inputs=inputs, options=options, gradients_for=gradients)
    found, exact = _evaluate(ask), _exactly(replace(ask, inputs=fewer))
    np.testing.assert_allclose(found.loss, exact.loss, 1e-5)
    rounding = 2**-8 if dtype == "bfloat16" else 1e-5
    for name in gradients:
        gradient = found.gradients[name].astype(np.float64)
        if name != "input":
            assert not gradient[~kept].any()
            gradient = gradient[kept]
        largest = np.abs(exact.gradients[name]).max()
        np.testing.assert_allclose(gradient, exact.gradients[name], rounding, 1e-5 * largest)


def test_a_class_of_probability_0_adds_nothing(way: str) -> None:
    """Its logit may be -inf; a class weight of 0 would multiply, as in torch."""
    del way
    for layout in ("batched", "probabilities"):
        ask = replace(ask_for(layout, smoothing=0.0), reduction=Reduction.SUM)
        inputs = {name: each.copy() for name, each in ask.inputs.items()}
        inputs["linear_bias"][:3] = -np.inf
        if layout == "batched":
            inputs["target"][inputs["target"] < 3] = 3
        else:
            inputs["target"][:, :3] = 0
        found = _evaluate(replace(ask, inputs=inputs))
        assert np.isfinite(found.sum)
        for name in ask.gradients_for:
            gradient = found.gradients[name]
            if name == "target":
                assert np.isposinf(gradient[gradient != 0].reshape(-1)).any()
                gradient = gradient[:, 3:]
            assert np.isfinite(gradient).all(), name


def test_gradients_are_written_to_their_destinations(way: str) -> None:
    """Also those of a rounded dtype, and without an array of their own."""
    del way
    for dtype in ("float32", "bfloat16"):
        ask = ask_for("batched", dtype, heads=(2,))
        work = work_of(ask)
        arrays = {name: np.full_like(work.inputs[name], np.nan) for name in work.gradients_for}
        outcome = compute(
            work.written_to({name: Place(each) for name, each in arrays.items()}), _CPU
        )
        assert not outcome.gradients
        for name, expected in _evaluate(ask).gradients.items():
            np.testing.assert_array_equal(arrays[name], expected)


def test_each_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of these tests lead to different cuts."""
    inputs = ask_for("batched", bias=False).inputs
    cuts = []
    for way in WAYS:
        with monkeypatch.context() as patch:
            take(way, patch)
            cuts.append(sizes_of(inputs, {"input": 4, "linear_weight": 4}, 4).cut())
    assert [(each.is_kept, each.group_rows, each.tile_classes) for each in cuts] == [
        (True, ROWS, CLASSES),
        (True, 20, CLASSES),
        (False, ROWS, 40),
    ]


def test_the_price_is_that_of_tiles() -> None:
    """A head of 1 GB with both gradients fits into 4 GiB; by autograd it does not."""
    shapes = {"input": (2048, 4096), "linear_weight": (128_256, 4096)}
    own = DTYPES["bfloat16"]
    # No memory is taken: all rows are the same bytes.
    inputs = {name: np.broadcast_to(np.zeros((), own), shape) for name, shape in shapes.items()}
    inputs["target"] = np.zeros(2048, np.int64)
    small = work_of(
        replace(ask_for("batched", "bfloat16", bias=False, weight=False), inputs=_small(inputs))
    )
    head = inputs["linear_weight"].nbytes
    works = []
    for engine in (evaluation_pb2.ENGINE_AUTO, evaluation_pb2.ENGINE_AUTOGRAD):
        work = replace(
            small,
            inputs=inputs,
            gradients_for=("input", "linear_weight"),
            values_shape=(2048,),
            bindings=replace(small.bindings, axes={"N": 2048, "C": 128_256, "F": 4096}),
            resident_bytes=head,
            engine=engine,
        )
        works.append(work)
    by_tiles, by_autograd = works
    assert reply_bytes(by_tiles) < peak_bytes(by_tiles) < 4 << 30 < peak_bytes(by_autograd)
    with running_evaluator(Gate(), memory_budget_bytes=4 << 30) as evaluator:
        assert demand(evaluator.budget, [by_tiles], copied=False) == peak_bytes(by_tiles)
        with pytest.raises(OverLimitError):
            demand(evaluator.budget, [by_autograd], copied=False)


def _small(inputs: dict[str, Array]) -> dict[str, Array]:
    return {name: each[:2, :8] if each.ndim > 1 else each[:2] for name, each in inputs.items()}
