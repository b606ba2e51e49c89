"""The corners of the losses of rows and sequences, and of functions that are steep or flat."""

import numpy as np
import numpy.typing as npt

from losswire.wire import OptionScalar
from tests.support.corner import INF, NAN, NONE, Corner

_SIX_FRAMES = np.log(np.full((6, 1, 3), 1 / 3, np.float32))

_Inputs = dict[str, npt.ArrayLike]
_MASKED: tuple[tuple[str, _Inputs], ...] = (
    ("cross_entropy", {"input": [[-INF, 1.0, 2.0]]}),
    (
        "linear_cross_entropy",
        {
            "input": [[0.0]],
            "linear_weight": [[0.0], [0.0], [0.0]],
            "linear_bias": [-INF, 1.0, 2.0],
        },
    ),
)
_WITH_WEIGHT_0: tuple[tuple[str, npt.ArrayLike, dict[str, OptionScalar]], ...] = (
    ("the target's", [0], {}),
    ("spread evenly", [1], {"label_smoothing": 0.1}),
    ("of a probability", [[0.5, 0.5, 0.0]], {}),
)

CORNERS_OF_ROWS = [
    *(
        Corner(
            name=f"a class weight of 0 multiplies an infinite loss, {kind}",
            loss=loss,
            inputs=inputs,
            options=options,
            reduction=NONE,
            expected=[NAN],
        )
        for loss, logits in _MASKED
        for kind, target, options in _WITH_WEIGHT_0
        for inputs in ({**logits, "target": target, "weight": [0.0, 1.0, 1.0]},)
    ),
    Corner(
        name="what one head removes adds nothing to the features",
        loss="linear_cross_entropy",
        inputs={
            "input": [[1.0]],
            "linear_weight": [[[0.0], [NAN]], [[0.0], [NAN]]],
            "target": [[1, -100]],
        },
        reduction=NONE,
        expected=[[np.log(2.0), 0.0]],
        auto_gradients={"input": [[0.0]]},
    ),
    Corner(
        name="a pos_weight of 0 multiplies an infinite loss",
        loss="binary_cross_entropy_with_logits",
        inputs={"input": [-INF], "target": [1.0], "pos_weight": [0.0]},
        reduction=NONE,
        expected=[NAN],
    ),
    Corner(
        name="NaN stays beside the limits",
        loss="kl_div",
        inputs={"input": [-INF, NAN], "target": [NAN, 0.0]},
        reduction=NONE,
        expected=[NAN, NAN],
        gradients={"target": [NAN, NAN]},
    ),
    Corner(
        name="NaN stays beside the limits, log_target",
        loss="kl_div",
        inputs={"input": [NAN, -1.0], "target": [-INF, NAN]},
        options={"log_target": True},
        reduction=NONE,
        expected=[NAN, NAN],
        gradients={"target": [NAN, NAN]},
    ),
    Corner(
        name="NaN stays beside the limits",
        loss="poisson_nll_loss",
        inputs={"input": [NAN], "target": [0.0]},
        options={"log_input": False},
        reduction=NONE,
        expected=[NAN],
        gradients={"input": [NAN]},
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
