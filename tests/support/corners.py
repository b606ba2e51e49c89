"""The corners of torch's losses, and the expected result of each."""

import numpy as np
import numpy.typing as npt

from losswire.server.catalogue.record import Reduction
from tests.support.corner import INF, MEAN, NAN, NONE, SUM, Corner
from tests.support.corners_of_rows import CORNERS_OF_ROWS

_LOGITS = [[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]]
_ZEROS = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
_IGNORED: dict[str, npt.ArrayLike] = {"input": _LOGITS, "target": [-100, -100]}

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
    *CORNERS_OF_ROWS,
]
