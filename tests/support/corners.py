"""The corners of torch's losses, and the expected result of each."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from losswire.server.catalogue.record import Reduction
from losswire.wire import OptionScalar
from tests.support.caller import Array, Ask

NAN, INF = float("nan"), float("inf")
MEAN, SUM, NONE = Reduction.MEAN, Reduction.SUM, Reduction.NONE


def as_array(values: npt.ArrayLike) -> Array:
    """Convert floats to float32 and integers to int64; arrays stay as they are."""
    if isinstance(values, np.ndarray):
        return values
    array = np.asarray(values)
    return array.astype(np.int64 if array.dtype.kind == "i" else np.float32)


@dataclass(frozen=True, kw_only=True)
class Corner:
    """One evaluation and its expected result, to float32's precision."""

    name: str
    loss: str
    inputs: dict[str, npt.ArrayLike]
    expected: npt.ArrayLike
    gradients: dict[str, npt.ArrayLike] = field(default_factory=dict)
    auto: npt.ArrayLike | None = None
    """The result with `engine = auto`, where that takes a limit."""
    auto_gradients: dict[str, npt.ArrayLike] = field(default_factory=dict)
    options: dict[str, OptionScalar] = field(default_factory=dict)
    reduction: Reduction = MEAN

    def results(self, engine: str) -> tuple[npt.ArrayLike, dict[str, npt.ArrayLike]]:
        """Return the expected loss and gradients by an engine."""
        if engine == "autograd":
            return self.expected, self.gradients
        expected = self.expected if self.auto is None else self.auto
        return expected, self.gradients | self.auto_gradients

    def ask(self, engine: str) -> Ask:
        """Return it as an evaluation; an unreduced loss is differentiated as its sum."""
        _, gradients = self.results(engine)
        unreduced = bool(gradients) and self.reduction is NONE
        return Ask(
            loss=self.loss,
            inputs={name: as_array(values) for name, values in self.inputs.items()},
            options=self.options,
            reduction=self.reduction,
            gradients_for=tuple(gradients),
            grad_output=np.ones(np.shape(self.expected)) if unreduced else None,
            engine=engine,
        )


_LOGITS = [[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]]
_ZEROS = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
_IGNORED: dict[str, npt.ArrayLike] = {"input": _LOGITS, "target": [-100, -100]}
_SIX_FRAMES = np.log(np.full((6, 1, 3), 1 / 3, np.float32))

CORNERS = [
    *(
        Corner(
            name=f"all ignored, {reduction.value}",
            loss=loss,
            inputs=_IGNORED,
            reduction=reduction,
            expected=expected,
            gradients={"input": _ZEROS},
        )
        for loss in ("cross_entropy", "nll_loss")
        for reduction, expected in ((MEAN, NAN), (SUM, 0.0), (NONE, [0.0, 0.0]))
    ),
    *(
        Corner(
            name="the only row ignored",
            loss=loss,
            inputs={"input": [1.0, 2.0], "target": -100},
            expected=NAN,
            gradients={"input": [0.0, 0.0]},
        )
        for loss in ("cross_entropy", "nll_loss")
    ),
    Corner(
        name="target with a logit of -inf",
        loss="cross_entropy",
        inputs={"input": [[-INF, 0.0]], "target": [0]},
        expected=INF,
        gradients={"input": [[-1.0, 1.0]]},
    ),
    Corner(
        name="another class with a logit of -inf",
        loss="cross_entropy",
        inputs={"input": [[-INF, 0.0, 0.0]], "target": [1]},
        expected=np.log(2.0),
        gradients={"input": [[0.0, -0.5, 0.5]]},
    ),
    Corner(
        name="probability 0 of a logit of -inf",
        loss="cross_entropy",
        inputs={"input": [[-INF, 0.0]], "target": [[0.0, 1.0]]},
        expected=NAN,
        auto=0.0,
    ),
    Corner(
        name="label smoothing over a logit of -inf",
        loss="cross_entropy",
        inputs={"input": [[-INF, 0.0]], "target": [1]},
        options={"label_smoothing": 0.1},
        expected=INF,
    ),
    Corner(
        name="label smoothing with a class weight",
        loss="cross_entropy",
        inputs={"input": [[0.0, 0.0]], "target": [1], "weight": [1.0, 3.0]},
        options={"label_smoothing": 0.5},
        # Half of it 3 log(2), half the sum of both classes over 2, divided by 3.
        expected=2.5 * np.log(2.0) / 3,
    ),
    Corner(
        name="the mean over probabilities is not divided by class weights",
        loss="cross_entropy",
        inputs={
            "input": [[0.0, 0.0], [0.0, 0.0]],
            "target": [[1.0, 0.0], [0.0, 1.0]],
            "weight": [1.0, 3.0],
        },
        expected=2 * np.log(2.0),
    ),
    Corner(
        name="the mean over indices is divided by class weights",
        loss="cross_entropy",
        inputs={"input": [[0.0, 0.0], [0.0, 0.0]], "target": [0, 1], "weight": [1.0, 3.0]},
        expected=np.log(2.0),
    ),
    Corner(
        name="uint8 marks what is ignored as 255",
        loss="cross_entropy",
        inputs={"input": [[0.0, 0.0], [9.0, 0.0]], "target": np.array([0, 255], np.uint8)},
        options={"ignore_index": 255},
        expected=np.log(2.0),
    ),
    Corner(
        name="uint8 has no -100 in its class 156",
        loss="nll_loss",
        inputs={"input": np.full((1, 200), -2.0, np.float32), "target": np.array([156], np.uint8)},
        expected=2.0,
    ),
    Corner(
        name="logarithms are clamped at -100",
        loss="binary_cross_entropy",
        inputs={"input": [0.0, 1.0, 0.0, 1.0], "target": [1.0, 0.0, 0.0, 1.0]},
        reduction=NONE,
        expected=[100.0, 100.0, 0.0, 0.0],
        gradients={"input": [-1e12, 1e12, 0.0, 0.0]},
    ),
    Corner(
        name="infinite logits",
        loss="binary_cross_entropy_with_logits",
        inputs={"input": [INF, INF, -INF, -INF], "target": [1.0, 0.0, 0.0, 1.0]},
        reduction=NONE,
        expected=[NAN, INF, NAN, NAN],
        auto=[0.0, INF, 0.0, INF],
    ),
    Corner(
        name="target 0",
        loss="kl_div",
        inputs={"input": [-1.0, -INF], "target": [0.0, 0.0]},
        reduction=NONE,
        expected=[0.0, NAN],
        auto=[0.0, 0.0],
    ),
    Corner(
        name="the slope at target 0",
        loss="kl_div",
        inputs={"input": [-1.0], "target": [0.0]},
        reduction=SUM,
        expected=0.0,
        gradients={"input": [0.0], "target": [NAN]},
        auto_gradients={"target": [-INF]},
    ),
    Corner(
        name="a negative target",
        loss="kl_div",
        inputs={"input": [-1.0], "target": [-0.5]},
        reduction=SUM,
        expected=NAN,
    ),
    Corner(
        name="a log-target of -inf",
        loss="kl_div",
        inputs={"input": [-1.0], "target": [-INF]},
        options={"log_target": True},
        reduction=SUM,
        expected=NAN,
        auto=0.0,
    ),
    Corner(
        name="rows without elements",
        loss="kl_div",
        inputs={"input": np.zeros((3, 0), np.float32), "target": np.zeros((3, 0), np.float32)},
        reduction=Reduction.BATCHMEAN,
        expected=0.0,
    ),
    Corner(
        name="a scalar is one row",
        loss="kl_div",
        inputs={"input": -1.0, "target": 1.0},
        reduction=Reduction.BATCHMEAN,
        expected=1.0,
    ),
    Corner(
        name="exponentials overflow",
        loss="soft_margin_loss",
        inputs={"input": [-89.0, 1.0], "target": [1.0, 1.0]},
        reduction=NONE,
        expected=[INF, np.log1p(np.exp(-1.0))],
        gradients={"input": [NAN, -1 / (1 + np.exp(1.0))]},
        auto=[89.0, np.log1p(np.exp(-1.0))],
        auto_gradients={"input": [-1.0, -1 / (1 + np.exp(1.0))]},
    ),
    Corner(
        name="exponentials overflow later in float64",
        loss="soft_margin_loss",
        inputs={"input": np.array([-700.0, -710.0]), "target": np.ones(2)},
        reduction=NONE,
        expected=[700.0, INF],
        auto=[700.0, 710.0],
    ),
    Corner(
        name="Stirling's term begins above 1",
        loss="poisson_nll_loss",
        inputs={"input": [0.0, 0.0], "target": [1.0, 2.0]},
        options={"full": True},
        reduction=NONE,
        expected=[1.0, 1.0 + 2 * np.log(2) - 2 + 0.5 * np.log(4 * np.pi)],
    ),
    Corner(
        name="the slope of Stirling's term",
        loss="poisson_nll_loss",
        inputs={"input": [0.5, 0.5], "target": [0.0, 2.0]},
        options={"full": True},
        reduction=SUM,
        expected=2 * np.exp(0.5) - 1.0 + 2 * np.log(2) - 2 + 0.5 * np.log(4 * np.pi),
        gradients={"target": [NAN, 0.4431472]},
        auto_gradients={"target": [-0.5, 0.4431472]},
    ),
    Corner(
        name="a masked class of probability 0",
        loss="cross_entropy",
        inputs={
            "input": [[1.0, 0.5, -INF], [0.25, 2.0, 1.0]],
            "target": [[0.25, 0.75, 0.0], [0.5, 0.0, 0.5]],
        },
        expected=NAN,
        auto=(
            np.log(np.exp(1.0) + np.exp(0.5))
            - 0.625
            + np.log(np.exp(0.25) + np.exp(2.0) + np.exp(1.0))
            - 0.625
        )
        / 2,
    ),
    Corner(
        name="a beta that float32 does not have",
        loss="smooth_l1_loss",
        inputs={"input": [3.0, 0.0], "target": [1.0, 0.0]},
        options={"beta": 1e-46},
        reduction=SUM,
        expected=2.0,
        auto_gradients={"input": [1.0, 0.0]},
    ),
    Corner(
        name="a negative rate, and an infinite one",
        loss="poisson_nll_loss",
        inputs={"input": [-1.0], "target": [1.0]},
        options={"log_input": False},
        reduction=NONE,
        expected=[NAN],
    ),
    Corner(
        name="exponentials overflow",
        loss="poisson_nll_loss",
        inputs={"input": [100.0], "target": [1.0]},
        reduction=NONE,
        expected=[INF],
    ),
    Corner(
        name="the gradient of a variance below eps is that at eps",
        loss="gaussian_nll_loss",
        inputs={"input": [0.0], "target": [1.0], "var": [0.0]},
        reduction=NONE,
        expected=[0.5 * (np.log(1e-6) + 1e6)],
        gradients={"var": [0.5 * (1e6 - 1e12)]},
    ),
    Corner(
        name="the zero vector",
        loss="cosine_embedding_loss",
        inputs={"input1": [[0.0, 0.0]], "input2": [[1.0, 1.0]], "target": [1]},
        reduction=NONE,
        expected=[1.0],
        gradients={"input1": [[-np.sqrt(0.5e12), -np.sqrt(0.5e12)]]},
    ),
    Corner(
        name="a target that is neither 1 nor -1 contributes 0",
        loss="cosine_embedding_loss",
        inputs={"input1": [[1.0, 0.0]], "input2": [[0.0, 1.0]], "target": [0]},
        reduction=NONE,
        expected=[0.0],
    ),
    Corner(
        name="a target that is neither 1 nor -1 adds both branches",
        loss="hinge_embedding_loss",
        inputs={"input": [0.25], "target": [0]},
        reduction=NONE,
        expected=[1.0],
    ),
    Corner(
        name="identical rows without eps",
        loss="triplet_margin_loss",
        inputs={"anchor": [[1.0, 2.0]], "positive": [[1.0, 2.0]], "negative": [[1.0, 2.0]]},
        options={"eps": 0.0},
        expected=1.0,
        gradients={"anchor": [[0.0, 0.0]]},
    ),
    Corner(
        name="too few frames",
        loss="ctc_loss",
        inputs={
            "log_probs": _SIX_FRAMES[:1],
            "targets": [[1, 2]],
            "input_lengths": [1],
            "target_lengths": [2],
        },
        expected=INF,
        gradients={"log_probs": np.full((1, 1, 3), NAN)},
    ),
    Corner(
        name="too few frames, zero_infinity",
        loss="ctc_loss",
        inputs={
            "log_probs": _SIX_FRAMES[:1],
            "targets": [[1, 2]],
            "input_lengths": [1],
            "target_lengths": [2],
        },
        options={"zero_infinity": True},
        expected=0.0,
        gradients={"log_probs": np.zeros((1, 1, 3))},
    ),
    Corner(
        name="no frames at all",
        loss="ctc_loss",
        inputs={
            "log_probs": _SIX_FRAMES,
            "targets": [[1]],
            "input_lengths": [0],
            "target_lengths": [1],
        },
        expected=INF,
    ),
    Corner(
        name="padding holds anything",
        loss="ctc_loss",
        inputs={
            "log_probs": _SIX_FRAMES[:1],
            "targets": [[1, 999999999, -5]],
            "input_lengths": [1],
            "target_lengths": [1],
        },
        expected=np.log(3.0),
    ),
    Corner(
        name="the slope of an absolute value at 0",
        loss="l1_loss",
        inputs={"input": [0.0], "target": [0.0]},
        expected=0.0,
        gradients={"input": [0.0]},
    ),
    Corner(
        name="beta 0 is l1_loss",
        loss="smooth_l1_loss",
        inputs={"input": [3.0, 0.0], "target": [1.0, 0.0]},
        options={"beta": 0.0},
        expected=1.0,
        gradients={"input": [0.5, 0.0]},
    ),
    Corner(
        name="the weighted mean divides by the weights",
        loss="mse_loss",
        inputs={"input": [2.0, 1.0], "target": [0.0, 0.0], "weight": [3.0, 1.0]},
        expected=13.0 / 4,
    ),
    Corner(
        name="the weighted mean divides by the number of values",
        loss="huber_loss",
        inputs={"input": [2.0, 1.0], "target": [0.0, 0.0], "weight": [3.0, 1.0]},
        expected=(3 * 1.5 + 0.5) / 2,
    ),
    Corner(
        name="a row is infinitely unlikely",
        loss="softmax",
        inputs={"input": [[-INF, -INF], [INF, 0.0], [-INF, 0.0]]},
        options={"dim": 1},
        reduction=NONE,
        expected=[[NAN, NAN], [NAN, NAN], [0.0, 1.0]],
    ),
    Corner(
        name="large numbers",
        loss="logsigmoid",
        inputs={"input": [-1000.0, 1000.0]},
        reduction=NONE,
        expected=[-1000.0, 0.0],
    ),
]
