"""The call that evaluates many small batches in one message."""

from collections.abc import Iterable, Sequence
from functools import partial

from losswire.client._calls.operations import (
    EVALUATE_MANY,
    Operation,
    Steps,
    StoreMissing,
    check_contents,
    residents_of,
)
from losswire.client._errors import LosswireError, unfit_error
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.factored import completed
from losswire.client._messages.request import joined
from losswire.client._messages.resident import StoredTensor, distinct, is_missing
from losswire.client._messages.response import EvaluationResult, read_outcome
from losswire.client._messages.template import AMONG_MANY, TEMPLATES
from losswire.v1 import loss_service_pb2

_Outcome = EvaluationResult | LosswireError


def evaluate_many(evaluations: Iterable[Evaluation]) -> Steps[list[_Outcome]]:
    """Evaluate many batches in one message, and once more those that miss a resident tensor."""
    items: list[bytes] = []
    fits = []
    tensors: list[tuple[StoredTensor, ...]] = []
    factored: dict[int, Evaluation] = {}
    for index, evaluation in enumerate(evaluations):
        item, fit = TEMPLATES.request(evaluation, AMONG_MANY, f"evaluations[{index}].")
        items.append(item)
        fits.append(fit)
        check_contents(evaluation)
        tensors.append(residents_of(evaluation))
        if evaluation.gradient_form == "factored":
            factored[index] = evaluation
    outcomes = yield from _many_with(items, tensors)
    outcomes = [fit.check_outcome(each) for fit, each in zip(fits, outcomes, strict=True)]
    for index, evaluation in factored.items():
        outcomes[index] = completed(evaluation, outcomes[index])
    return outcomes


def _many_with(
    items: list[bytes], tensors: Sequence[tuple[StoredTensor, ...]]
) -> Steps[list[_Outcome]]:
    """Evaluate many batches, and once more those that miss one of their resident tensors."""
    operation = _many(items)
    if not any(tensors):
        items.clear()
    outcomes: list[_Outcome] = yield operation
    missed = [index for index, outcome in enumerate(outcomes[: len(items)]) if is_missing(outcome)]
    if not missed:
        return outcomes
    again = [items[index] for index in missed]
    try:
        yield StoreMissing(distinct(each for index in missed for each in tensors[index]))
        found: list[_Outcome] = yield _many(again)
    except LosswireError as error:
        # The others have their outcomes, and keep them.
        found = [error] * len(missed)
    for index, outcome in zip(missed, found, strict=True):
        outcomes[index] = outcome
    return outcomes


def _many(items: Sequence[bytes]) -> Operation[list[_Outcome]]:
    return Operation(EVALUATE_MANY, joined(items), partial(_read_many, len(items)))


def _read_many(count: int, answer: loss_service_pb2.EvaluateManyResponse) -> list[_Outcome]:
    if len(answer.outcomes) != count:
        raise unfit_error(f"{len(answer.outcomes)} outcomes for {count} evaluations")
    return [read_outcome(outcome) for outcome in answer.outcomes]
