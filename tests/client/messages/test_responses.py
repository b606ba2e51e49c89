"""How answers become results, descriptions and server information."""

import dataclasses
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from losswire.client import (
    Client,
    Evaluation,
    EvaluationResult,
    InputInfo,
    InternalError,
    LayoutInfo,
    Limits,
    LossInfo,
    OptionInfo,
    Receipt,
    Transports,
)
from losswire.v1 import evaluation_pb2, loss_info_pb2, tensor_pb2
from losswire.wire import encode_option, encode_tensor
from tests.client.conftest import Call
from tests.support.scripted import Scripted, echo, serving


def test_a_result_has_all_its_parts(call: Call, echoing: Scripted) -> None:
    """Loss, sums, times and receipt arrive as numpy and Python values."""
    result: EvaluationResult = call(
        echoing.address, "evaluate", "any", {"x": [1.0]}, gradients=["x"]
    )
    assert (result.loss.shape, float(result.loss)) == ((), 1.0)
    assert list(result.gradients) == ["x"]
    assert result.factored_gradients == {}
    sums = (result.sum, result.mean_numerator, result.mean_denominator, result.count)
    assert sums == (2.0, 2.0, 2.0, 2)
    assert (result.queue_nanoseconds, result.compute_nanoseconds) == (3, 4)
    assert result.receipt == Receipt(
        device="cpu",
        engine="autograd",
        compute_dtype="float32",
        server_version="1.2.3",
        torch_version="2.0",
    )


def test_arrays_of_a_result_are_the_callers_own(call: Call, echoing: Scripted) -> None:
    """A gradient can be scaled in place."""
    result = call(echoing.address, "evaluate", "any", {"x": np.ones((2, 3), "f4")}, gradients=["x"])
    result.gradients["x"] *= 0.5
    np.testing.assert_array_equal(result.gradients["x"], np.full((2, 3), 0.5, "f4"))
    assert result.loss.flags.writeable


def test_evaluations_and_results_are_values(echoing: Scripted) -> None:
    """Neither can be changed; both can be copied and pickled, and say what is in them."""
    evaluation = Evaluation("any", {"x": np.ones(2, "f4")}, normalizer=2.0)
    with Client(echoing.address) as client:
        result = client.evaluate("any", evaluation.inputs)
    values: list[tuple[Any, str]] = [(evaluation, "normalizer"), (result, "sum")]
    for value, field in values:
        assert getattr(value, field) == 2.0
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, 1.0)
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.another = 1.0
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(value, field)
        replaced = dataclasses.replace(value, **{field: 3.0})
        again = pickle.loads(pickle.dumps(replaced))  # noqa: S301 - made right here
        names = [each.name for each in dataclasses.fields(value)]
        assert list(vars(value)) == list(vars(again)) == names
        assert getattr(again, field) == 3.0
        assert f"{field}=3.0" in repr(again)
        assert value != again


def test_options_are_each_evaluations_own() -> None:
    """Options that are left out are an empty mapping, and nobody else's."""
    one, other = Evaluation("any", {}), Evaluation("any", {})
    assert one.options == other.options == {}
    assert one.options is not other.options


def test_factored_gradients() -> None:
    """The numbers of each row arrive under the input's name."""
    factors = evaluation_pb2.FactoredGradient(
        lse=encode_tensor(np.array([1.0, 2.0])),
        scale=encode_tensor(np.array([0.5, 0.5])),
        lse_tail=encode_tensor(np.array([0.0, 0.25])),
    )
    answer = evaluation_pb2.EvaluationResult(
        loss=encode_tensor(np.float32(1)), factored_gradients={"input": factors}
    )
    with serving(Scripted(lambda *_: answer)) as service, Client(service.address) as client:
        result = client.evaluate(
            "any", {"input": [1.0, 2.0]}, gradients=["input"], gradient_form="factored"
        )
    np.testing.assert_array_equal(result.factored_gradients["input"].lse, [1.0, 2.0])
    np.testing.assert_array_equal(result.factored_gradients["input"].scale, [0.5, 0.5])
    np.testing.assert_array_equal(result.factored_gradients["input"].lse_tail, [0.0, 0.25])


def truncated() -> evaluation_pb2.EvaluationResult:
    """Make a result whose gradient lost its last byte."""
    gradient = tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1], data=b"123")
    return evaluation_pb2.EvaluationResult(loss=encode_tensor(1.0), gradients={"x": gradient})


def test_a_malformed_answer_is_the_servers_bug(call: Call) -> None:
    """An answer whose bytes and shape disagree is InternalError, never a wrong array."""
    with (
        serving(Scripted(lambda *_: truncated())) as service,
        pytest.raises(InternalError) as raised,
    ):
        call(service.address, "evaluate", "any", {})
    assert raised.value.reason == "MALFORMED_RESPONSE"
    assert [each.field for each in raised.value.violations] == ['gradients["x"].data']


@pytest.fixture
def malformed_items() -> Iterator[Scripted]:
    """A server whose items are empty, malformed and good in turn."""
    outcomes = iter(
        [
            evaluation_pb2.EvaluationOutcome(),
            evaluation_pb2.EvaluationOutcome(result=truncated()),
            evaluation_pb2.EvaluationOutcome(result=echo(evaluation_pb2.Evaluation())),
        ]
    )
    with serving(Scripted(item_script=lambda _: next(outcomes))) as service:
        yield service


def test_a_malformed_item_spares_the_others(call: Call, malformed_items: Scripted) -> None:
    """Items without a sound outcome are InternalError, the others keep their results."""
    outcomes = call(malformed_items.address, "evaluate_many", [Evaluation("any", {})] * 3)
    assert [type(outcome) for outcome in outcomes] == [
        InternalError,
        InternalError,
        EvaluationResult,
    ]


MESSAGE = loss_info_pb2.LossInfo(
    name="cross_entropy",
    kind=loss_info_pb2.LOSS_KIND_LOSS,
    summary="One sentence.",
    inputs=[
        loss_info_pb2.InputInfo(
            name="input",
            data_types=[tensor_pb2.DATA_TYPE_FLOAT32, tensor_pb2.DATA_TYPE_BFLOAT16],
            required=True,
            differentiable_in=["batched"],
            value_hints=["logits"],
        ),
        loss_info_pb2.InputInfo(name="target", value_rules=["in [0, C)"], promotes=True),
    ],
    options=[
        loss_info_pb2.OptionInfo(
            name="label_smoothing",
            type=loss_info_pb2.OPTION_TYPE_DOUBLE,
            default_value=encode_option(0.0),
            range="[0, 1]",
        ),
        loss_info_pb2.OptionInfo(name="new", type=99, required=True),  # type: ignore[arg-type]
    ],
    layouts=[
        loss_info_pb2.LayoutInfo(
            name="batched",
            inputs={"target": "N", "input": "N C"},
            values="N",
            data_types={
                "target": loss_info_pb2.DataTypeList(data_types=[tensor_pb2.DATA_TYPE_INT64]),
                "input": loss_info_pb2.DataTypeList(data_types=[tensor_pb2.DATA_TYPE_FLOAT32]),
            },
            nonempty_axes=["C"],
        )
    ],
    reductions=[evaluation_pb2.REDUCTION_NONE, evaluation_pb2.REDUCTION_MEAN],
    default_reduction=evaluation_pb2.REDUCTION_MEAN,
    mean_denominator="the sum of the weights",
    separable=True,
    source="torch.nn.functional.cross_entropy",
)

INFO = LossInfo(
    name="cross_entropy",
    kind="loss",
    summary="One sentence.",
    description="",
    inputs=(
        InputInfo(
            name="input",
            description="",
            dtypes=("float32", "bfloat16"),
            required=True,
            differentiable_in=("batched",),
            factored_in=(),
            value_rules=(),
            value_hints=("logits",),
            promotes=False,
        ),
        InputInfo(
            name="target",
            description="",
            dtypes=(),
            required=False,
            differentiable_in=(),
            factored_in=(),
            value_rules=("in [0, C)",),
            value_hints=(),
            promotes=True,
        ),
    ),
    options=(
        OptionInfo(
            name="label_smoothing",
            description="",
            type=float,
            default=0.0,
            required=False,
            range="[0, 1]",
            choices=(),
        ),
        OptionInfo(
            name="new",
            description="",
            type=None,
            default=None,
            required=True,
            range="",
            choices=(),
        ),
    ),
    layouts=(
        LayoutInfo(
            name="batched",
            inputs={"input": "N C", "target": "N"},
            values="N",
            dtypes={"input": ("float32",), "target": ("int64",)},
            nonempty_axes=("C",),
        ),
    ),
    reductions=("none", "mean"),
    default_reduction="mean",
    mean_denominator="the sum of the weights",
    separable=True,
    closed_form=False,
    source="torch.nn.functional.cross_entropy",
)


def test_a_loss_is_described_in_python_types(call: Call) -> None:
    """Dtypes are names, option types are Python's, shapes are in the order of the inputs."""
    with serving(Scripted(losses=[MESSAGE])) as service:
        [info] = call(service.address, "losses")
    assert info == INFO
    assert list(info.layouts[0].inputs) == ["input", "target"]


def test_server_info(call: Call, echoing: Scripted) -> None:
    """Limits and transports have the fields of their messages."""
    info = call(echoing.address, "server_info")
    assert info.limits == Limits(
        max_message_bytes=4_000_000,
        max_rank=0,
        max_evaluations_per_call=0,
        max_in_flight_per_stream=8,
        memory_budget_bytes=0,
        preferred_chunk_bytes=0,
        resident_quota_bytes=0,
    )
    assert info.transports == Transports(chunked=False, resident_tensors=False, region_socket="")
