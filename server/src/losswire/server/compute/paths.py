"""The choice of path: by which code an evaluation is computed.

It depends on nothing but the skeleton of the evaluation and the kind of device, so that no
result depends on other evaluations. How a chunked call is cut makes no difference either.
"""

from collections.abc import Collection
from enum import Enum, auto
from typing import Final

from losswire.server.catalogue.closed_form import ClosedForm, TiledForm
from losswire.server.compute import thresholds
from losswire.server.compute.work import COMPUTED_IN, Work, of_skeleton
from losswire.v1 import evaluation_pb2

_FLOAT32_BYTES: Final = 4


class Path(Enum):
    """A way to compute an evaluation."""

    NATIVE = auto()
    """Rows in C++, on a CPU."""
    FACTORED = auto()
    """Closed forms in torch that return numbers of each row instead of a dense gradient."""
    STACKED = auto()
    """Small evaluations together, on a GPU."""
    BLOCKS = auto()
    """Closed forms in torch that walk blocks of rows, on a CPU."""
    TILED = auto()
    """Closed forms in torch that make large intermediate results in tiles."""
    AUTOGRAD = auto()
    """The record's function and torch's autograd."""


def path_of(work: Work, device_type: str) -> tuple[Path, ClosedForm | TiledForm | None]:
    """Return the path of an evaluation on a kind of device, and the closed form it takes."""
    on_cpu = device_type == "cpu"
    if on_cpu and (form := native_form(work)):
        return Path.NATIVE, form
    if work.factored:
        return Path.FACTORED, None
    if not on_cpu and (form := stacked_form(work)):
        return Path.STACKED, form
    if on_cpu and (form := block_form(work)):
        return Path.BLOCKS, form
    if tiled := tiled_form(work):
        return Path.TILED, tiled
    return Path.AUTOGRAD, None


def is_small(work: Work) -> bool:
    """Return whether an evaluation takes little time, on one thread."""
    return work.input_bytes < thresholds.SMALL_BYTES


def stackable(work: Work) -> bool:
    """Return whether evaluations of its skeleton may be computed together, on a GPU."""
    return work.skeleton is not None and stacked_form(work) is not None and _only_has_rows(work)


def remember(work: Work) -> None:
    """Compute the cached properties that all evaluations of a skeleton will share."""
    _ = native_form(work), stacked_form(work), block_form(work), tiled_form(work)
    _ = _only_has_rows(work), work.input_bytes


@of_skeleton
def native_form(work: Work) -> ClosedForm | None:
    """Return the closed form by whose native rows it is computed on a CPU; None: none fits."""
    if work.whole is not None:
        return native_form(work.whole)
    form = _form_of_any_size(work)
    if (
        form is None
        or form.native is None
        or not form.native.fits(work.inputs, work.options)
        or any(_natural_type(work, name) != work.compute_dtype for name in form.gradients)
    ):
        return None
    return form


@of_skeleton
def stacked_form(work: Work) -> ClosedForm | None:
    """Return the closed form by which it is computed on a GPU if it is small; None: none fits."""
    if work.whole is not None:
        return stacked_form(work.whole)
    form = _form_of_any_size(work)
    if (
        form is None
        or work.factored
        or form.stacked is None
        or work.sample_weight is not None
        or not is_small(work)
        or not form.fits_stacked(work.inputs, work.options)
    ):
        return None
    return form


@of_skeleton
def block_form(work: Work) -> ClosedForm | None:
    """Return the closed form by whose blocks it is computed on a CPU if large; None: none fits."""
    if work.whole is not None:
        return block_form(work.whole)
    if work.factored or work.input_bytes < thresholds.BLOCK_FORM_BYTES:
        return None
    return _form_of_any_size(work)


@of_skeleton
def tiled_form(work: Work) -> TiledForm | None:
    """Return the closed form by whose tiles it is computed; None: none fits."""
    if work.whole is not None:
        return tiled_form(work.whole)
    form = work.record.tiled_forms.get(work.layout.name)
    return form if form is not None and _fits(work, form.gradients) else None


@of_skeleton
def _only_has_rows(work: Work) -> bool:
    return work.row_inputs == work.inputs.keys()


@of_skeleton
def _form_of_any_size(work: Work) -> ClosedForm | None:
    """Return the closed form of its layout, where that can compute it; its size aside."""
    form = work.record.closed_forms.get(work.layout.name)
    if form is None or not work.values_shape or not _fits(work, form.gradients):
        return None
    return form


def _fits(work: Work, gradients: Collection[str]) -> bool:
    """Return whether a closed form with these gradients may compute an evaluation."""
    return (
        work.engine != evaluation_pb2.ENGINE_AUTOGRAD
        and work.compute_dtype in COMPUTED_IN
        and work.loss_dtype == work.compute_dtype
        and set(work.gradients_for) <= set(gradients)
        and all(array.size for array in work.inputs.values())
    )


def _natural_type(work: Work, name: str) -> str:
    """Return the dtype that an input is computed in by default."""
    dtype = work.inputs[name].dtype
    return "float32" if dtype.itemsize < _FLOAT32_BYTES else dtype.name
