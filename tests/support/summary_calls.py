"""SummarizeLosses, written plainly: protobuf encodes every part."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from losswire.v1 import evaluation_pb2, loss_service_pb2, summary_pb2, tensor_pb2
from tests.support.requests import TIMEOUT, Array, Stub, evaluation, tensor

if TYPE_CHECKING:
    import numpy.typing as npt

Request = loss_service_pb2.SummarizeLossesRequest
Tensors = Mapping[str, Any]


@dataclass
class Answer:
    """The answer to a call so far."""

    progress: list[loss_service_pb2.SummaryProgress] = field(default_factory=list)
    reports: list[loss_service_pb2.SummaryReport] = field(default_factory=list)

    @property
    def summary(self) -> summary_pb2.LossSummary:
        """The summary of the last report."""
        return self.reports[-1].summary

    @property
    def total(self) -> summary_pb2.LossDistribution:
        """All rows of a summary of one."""
        [total] = self.summary.total.distributions
        return total


def header(
    loss: str,
    shared: Tensors | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    fields: Mapping[str, Any] | None = None,
    tables: Sequence[Sequence[str]] = (),
    candidates: Mapping[str, Tensors] | None = None,
    **others: Any,  # noqa: ANN401 (any field of the header)
) -> Request:
    """Return a header; `fields` are further ones of its evaluation."""
    return Request(
        header=summary_pb2.SummaryHeader(
            evaluation=evaluation(loss, shared or {}, options, **(fields or {})),
            tables=[summary_pb2.SliceTableHeader(columns=each) for each in tables],
            candidates=[
                summary_pb2.SummaryCandidate(
                    name=name, inputs={key: tensor(each) for key, each in own.items()}
                )
                for name, own in (candidates or {}).items()
            ],
            **others,
        )
    )


def column(codes: "npt.ArrayLike | tensor_pb2.Tensor", *labels: str) -> summary_pb2.Column:
    """Return a column of texts, or of numbers without labels."""
    return summary_pb2.Column(codes=tensor(codes), labels=labels)


def batch(
    inputs: Tensors,
    *,
    sample_weight: "Array | tensor_pb2.Tensor | None" = None,
    candidates: Sequence[Tensors] = (),
    **others: Any,  # noqa: ANN401 (any field of the batch)
) -> Request:
    """Return a batch."""
    if sample_weight is not None:
        others["sample_weight"] = tensor(sample_weight)
    return Request(
        batch=summary_pb2.SummaryBatch(
            inputs={name: tensor(each) for name, each in inputs.items()},
            candidates=[
                summary_pb2.CandidateBatch(
                    inputs={name: tensor(each) for name, each in own.items()}
                )
                for own in candidates
            ],
            **others,
        )
    )


def read(
    responses: Iterator[loss_service_pb2.SummarizeLossesResponse], into: Answer | None = None
) -> Answer:
    """Read the answer to a call, into an object that keeps what came before an error."""
    answer = into or Answer()
    for each in responses:
        if each.HasField("report"):
            answer.reports.append(each.report)
        else:
            answer.progress.append(each.progress)
    return answer


def summarize(stub: Stub, requests: Iterable[Request], into: Answer | None = None) -> Answer:
    """Call and read the answer; raises grpc.RpcError."""
    return read(stub.SummarizeLosses(iter(requests), timeout=TIMEOUT), into)


def numerator_and_denominator(
    results: Iterable[evaluation_pb2.EvaluationResult],
) -> tuple[float, float]:
    """Return the sums over some evaluations, of which a mean of all rows is the quotient."""
    found = list(results)
    return sum(each.mean_numerator for each in found), sum(each.mean_denominator for each in found)
