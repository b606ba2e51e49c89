"""The reductions of a summary's rows in C++, each row read once."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from losswire.server.compute.native import binding
from losswire.server.compute.native.binding import SummaryRows
from losswire.summaries import GroupMoments, Kernels, bucket_cells

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_FAR: Final = 64.0
"""How many variances the square of a mean may be for its moments to be found in one pass."""


class NativeKernels(Kernels):
    """Reductions in C++; those that it does not do are numpy's."""

    def indices(self, magnitudes: Floats, scale: int) -> Integers:
        """Return the bucket of each value, which is greater than 0."""
        if scale <= 0:
            return super().indices(magnitudes, scale)
        magnitudes = np.ascontiguousarray(magnitudes)
        found = np.empty(len(magnitudes), np.int64)
        shift, below, bound = bucket_cells(scale)
        call = SummaryRows(rows=len(found), scale=scale, shift=shift)
        _run("indices", call, values=magnitudes, indices=found, below=below, bound=bound)
        return found

    def sums(self, values: Floats, group: Integers, groups: int) -> tuple[Floats, Floats]:
        """Return the number of rows and the sum of the values of each group."""
        counts, sums = np.zeros(groups), np.zeros(groups)
        call = SummaryRows(rows=len(values))
        _run("sums", call, values=values, group=group, counts=counts, sums=sums)
        return counts, sums

    def moments(
        self, values: Floats, group: Integers, origin: Floats, counts: Floats
    ) -> GroupMoments:
        """Return the moments of each group, of which `counts` has the number of rows."""
        first, second = np.zeros(len(origin)), np.zeros(len(origin))
        minimum, maximum = np.full(len(origin), np.inf), np.full(len(origin), -np.inf)
        call = SummaryRows(rows=len(values))
        arrays = {"first": first, "second": second, "minimum": minimum, "maximum": maximum}
        _run("moments", call, values=values, group=group, origin=origin, **arrays)
        means = first / np.where(counts == 0, 1.0, counts)
        excess = first * means
        products = second - excess
        # Far from the origin the difference has lost digits: two passes keep them.
        if not (excess <= _FAR * products).all():
            return super().moments(values, group, origin, counts)
        return GroupMoments(means, products, minimum, maximum)

    def count(self, weights: Floats, indices: Integers, group: Integers, first: int) -> None:
        """Add 1 to the bucket of each row: `weights` has, by group, the buckets from `first` on."""
        call = SummaryRows(rows=len(indices), stride=weights.shape[1], first_index=first)
        _run("count", call, weights=weights, indices=indices, group=group)


def _run(name: str, call: SummaryRows, **arrays: npt.NDArray[Any]) -> None:
    """Call a function of the library, without the interpreter's lock."""
    # Kept until the call is over: their addresses are all that it has.
    kept = {key: np.ascontiguousarray(each) for key, each in arrays.items()}
    for key, each in kept.items():
        setattr(call, key, each.ctypes.data)
    getattr(binding.RELEASING, f"losswire_summary_{name}")(call)


KERNELS: Final = NativeKernels() if binding.AVAILABLE else Kernels()
"""The reductions of this installation."""
