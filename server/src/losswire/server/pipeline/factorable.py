"""Which gradients can be returned in factored form."""

from losswire.server.catalogue.layouts import Layout
from losswire.server.catalogue.record import LossRecord
from losswire.server.compute.work import COMPUTED_IN
from losswire.server.pipeline.decode import Request
from losswire.v1 import evaluation_pb2

_DENSE = "GRADIENT_FORM_DENSE"


def unfactorable(
    request: Request, record: LossRecord, layout: Layout, compute_dtype: str | None
) -> str | None:
    """Return why the requested gradients cannot be factored, and which can; None if they can."""
    if not (request.factored and request.gradients_for):
        return None
    wanted = [name for name in request.gradients_for if name in record.inputs]
    others = [name for name in wanted if layout.name not in record.factored_in(name)]
    if not any(map(record.factored_in, record.inputs)):
        return f"{record.name} has no factored gradients; ask for {_DENSE}"
    if others:
        known = [name for name in record.inputs if layout.name in record.factored_in(name)]
        which = f"; only that of {known[0]} can" if known else ""
        return f"the gradient of {others[0]} cannot be factored{which}; ask for {_DENSE}"
    if request.engine == evaluation_pb2.ENGINE_AUTOGRAD:
        text = "torch's own path has dense gradients only; ask for ENGINE_AUTO or"
        return f"{text} {_DENSE}"
    if compute_dtype is not None and compute_dtype not in COMPUTED_IN:
        text = f"factored gradients are not computed in {compute_dtype}; leave compute_data_type"
        return f"{text} unset or ask for {_DENSE}"
    return None
