"""The evaluations that C++ computes inside their messages."""

from typing import Final

from losswire.server.compute.native.elementwise import ElementLoss
from losswire.server.compute.native.places import InMessage, MessageOffsets
from losswire.server.compute.native.softmax import SoftmaxLoss
from losswire.server.compute.paths import native_form
from losswire.server.compute.work import Work

_KINDS: Final = (SoftmaxLoss, ElementLoss)
"""The kinds of losses that have an entry point for messages."""


def fits_message(work: Work) -> bool:
    """Return whether the tensors of an evaluation are read and written as they are."""
    loss = _loss_of(work)
    return loss is not None and loss.fits_message(work)


def native_computation(places: MessageOffsets) -> InMessage | None:
    """Return the computation in C++ of one skeleton's evaluations; None when there is none.

    Its results have the same bits as those of `rows` on one thread.
    """
    loss = _loss_of(places.work)
    if loss is None or not loss.fits_message(places.work):
        return None
    return loss.message_call(places)


def _loss_of(work: Work) -> SoftmaxLoss | ElementLoss | None:
    """Return the loss that computes an evaluation in C++, if it can do so in a message."""
    form = native_form(work)
    return form.native if form and isinstance(form.native, _KINDS) else None
