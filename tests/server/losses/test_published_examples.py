"""Numbers that were printed elsewhere come out of the service, to the printed digits."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from losswire.server.catalogue.record import Reduction
from losswire.wire import OptionScalar
from tests.support.caller import Ask, Caller


@dataclass(frozen=True, kw_only=True)
class Example:
    """A published computation; floats are float32, integers int64."""

    loss: str
    inputs: dict[str, npt.ArrayLike]
    expected: npt.ArrayLike
    digits: int
    """The number of digits printed after the point."""
    reduction: Reduction = Reduction.MEAN
    options: dict[str, OptionScalar] = field(default_factory=dict)

    def ask(self) -> Ask:
        """Return it as an evaluation."""
        arrays = {name: np.asarray(values) for name, values in self.inputs.items()}
        return Ask(
            loss=self.loss,
            inputs={
                name: array.astype(np.float32) if array.dtype == np.float64 else array
                for name, array in arrays.items()
            },
            options=self.options,
            reduction=self.reduction,
        )


_PAIR: dict[str, npt.ArrayLike] = {
    "input": [[3.0, 1.0], [1.0, 0.0]],
    "target": [[1.0, 0.0], [1.0, 0.0]],
}
_PROBABILITIES: dict[str, npt.ArrayLike] = {"input": [0.4, 0.1], "target": [0.2, 0.8]}
_SPATIAL = [
    [
        [[-0.2493, -0.9333], [0.0676, 1.2035]],
        [[0.2987, -0.6044], [-0.1341, 0.0938]],
        [[-1.3529, -0.2693], [-0.3259, -0.7915]],
    ]
]

EXAMPLES = (
    Example(
        loss="cross_entropy",
        inputs={"input": [[2.0, 1.0], [1.0, 2.0]], "target": [1, 0]},
        expected=1.3133,
        digits=4,
    ),
    Example(loss="binary_cross_entropy", inputs=_PROBABILITIES, expected=1.2275, digits=4),
    Example(
        loss="binary_cross_entropy_with_logits", inputs=_PROBABILITIES, expected=0.7487, digits=4
    ),
    Example(
        loss="binary_cross_entropy_with_logits",
        inputs={"input": [1.5], "target": [1.0]},
        expected=0.2014133,
        digits=7,
    ),
    Example(loss="l1_loss", inputs=_PAIR, expected=0.75, digits=7),
    Example(loss="mse_loss", inputs=_PAIR, expected=1.25, digits=7),
    Example(
        loss="nll_loss",
        inputs={"input": [[3.0, 1.0], [2.0, 4.0]], "target": [0, 1]},
        expected=-3.5,
        digits=7,
    ),
    Example(
        loss="nll_loss",
        inputs={"input": np.log([[0.1, 0.3, 0.6], [0.3, 0.2, 0.5]]), "target": [0, 2]},
        expected=[2.3026, 0.6931],
        digits=4,
        reduction=Reduction.NONE,
    ),
    Example(
        loss="kl_div",
        inputs={"input": np.log([0.5, 0.2, 0.3]), "target": [0.1, 0.2, 0.7]},
        expected=0.43216,
        digits=5,
        reduction=Reduction.SUM,
    ),
    Example(
        loss="cross_entropy",
        inputs={"input": [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], "target": [2, 0]},
        expected=1.4076059,
        digits=7,
    ),
    Example(
        loss="cross_entropy",
        inputs={"input": [[2.0, 1.0, 0.1], [0.5, 2.0, 0.3]], "target": [0, 1]},
        expected=0.3788231,
        digits=7,
    ),
    Example(
        loss="cross_entropy",
        inputs={"input": [[0.1, 0.2, 0.7]], "target": [2]},
        expected=0.7679496,
        digits=7,
    ),
    Example(
        loss="cross_entropy",
        inputs={"input": _SPATIAL, "target": [[[0, 1], [2, 0]]]},
        expected=0.9862,
        digits=4,
    ),
    Example(
        loss="multilabel_margin_loss",
        inputs={"input": [[0.1, 0.2, 0.4, 0.8]], "target": [[0, 3, -1, -1]]},
        expected=0.85,
        digits=6,
    ),
    Example(
        loss="hinge_embedding_loss",
        inputs={"input": [[1.0, 0.8, 0.5]], "target": [[1, 1, -1]]},
        expected=[[1.0, 0.8, 0.5]],
        digits=6,
        reduction=Reduction.NONE,
    ),
    Example(
        loss="margin_ranking_loss",
        inputs={
            "input1": [[1.0], [2.0], [3.0]],
            "input2": [[2.0], [2.0], [2.0]],
            "target": [[1], [1], [-1]],
        },
        expected=[[1.0], [0.0], [1.0]],
        digits=7,
        reduction=Reduction.NONE,
    ),
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.loss)
def test_example_has_the_published_result(caller: Caller, example: Example) -> None:
    """A published example gives the printed digits in float32."""
    result = caller.evaluate(example.ask())
    assert result.loss.dtype == np.float32
    printed = np.round(result.loss.astype(np.float64), example.digits)
    assert printed.tolist() == np.round(np.asarray(example.expected), example.digits).tolist()


def test_cross_entropy_is_the_nll_loss_of_log_softmax(caller: Caller) -> None:
    """Cross entropy equals nll_loss of log_softmax, each taken from the service."""
    logits, target = np.array([[2, 1], [1, 2]], np.float32), np.array([1, 0])
    direct = caller.evaluate(Ask(loss="cross_entropy", inputs={"input": logits, "target": target}))
    log_probabilities = caller.evaluate(
        Ask(loss="log_softmax", inputs={"input": logits}, options={"dim": 1})
    )
    composed = caller.evaluate(
        Ask(loss="nll_loss", inputs={"input": log_probabilities.loss, "target": target})
    )
    assert composed.loss == direct.loss
    assert round(float(direct.loss), 4) == 1.3133
