"""A mistake: an evaluation that must be refused, and exactly how."""

from dataclasses import dataclass

import grpc

from losswire.v1 import evaluation_pb2


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One wrong evaluation and its refusal."""

    what: str
    """The mistake in words; names the test."""
    item: evaluation_pb2.Evaluation
    found: tuple[tuple[str, str], ...] = ()
    """Every violation: the exact path of the field, and a part of what it must say."""
    code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT
    reason: str = "INVALID_EVALUATION"
    says: str = ""
    """A part of the message, where there are no violations."""


def mistake(what: str, item: evaluation_pb2.Evaluation, *found: tuple[str, str]) -> Mistake:
    """Describe an evaluation with invalid arguments."""
    return Mistake(what=what, item=item, found=found)
