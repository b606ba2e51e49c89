"""Which losses are refused when they are declared."""

import pytest
from torch import Tensor

from losswire.server.declare import Input, RecordError, Terms, floats, layout, loss


@pytest.mark.parametrize("values", ["N C", "M", "*S", "2"])
def test_axes_that_no_input_has(values: str) -> None:
    """The axes of values are those of inputs: callers check unreduced losses by it."""

    def declared(input: Tensor) -> Terms:
        """Compute anything."""
        return Terms(input)

    declare = loss(
        layouts=(layout("rows", input=floats("N"), values=values),),
        inputs={"input": Input(meaning="Anything.", differentiable=True)},
        source="made up",
    )
    with pytest.raises(RecordError, match="no input has the axes"):
        declare(declared)


@pytest.mark.parametrize(
    ("axes", "values"), [("N 2", "N 2"), ("N C", "N 1"), ("#*S", "*S"), ("#1 *S", "*S"), ("N", "")]
)
def test_axes_that_an_input_has(axes: str, values: str) -> None:
    """A number is an axis like any other, and an axis of length 1 may be anywhere."""

    def declared(input: Tensor) -> Terms:
        """Compute anything."""
        return Terms(input)

    record = loss(
        layouts=(layout("rows", input=floats(axes), values=values),),
        inputs={"input": Input(meaning="Anything.", differentiable=True)},
        source="made up",
    )(declared)
    assert record.layouts[0].values.text == values
