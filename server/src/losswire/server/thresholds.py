"""The sizes at which the server chooses another way, each with its unit and its measurement."""

from typing import Final

# compute

SMALL_BYTES: Final = 64 << 10
"""Bytes of all inputs below which an evaluation is small: one thread computes it, because torch
splits some operations over its threads however small they are, and waiting for a thread on a busy
machine takes a hundred times as long as the work. Measured: docs/decisions/0014."""

BLOCK_FORM_BYTES: Final = 512 << 10
"""Bytes of all inputs from which closed forms in torch walk blocks of rows; below, autograd costs
less. Measured: docs/decisions/0008."""

BLOCK_BYTES: Final = 2 << 20
"""Bytes of the largest input in one block of a closed form in torch: enough to hide the cost of a
call, few enough to stay in the cache from one pass to the next. Measured: docs/decisions/0008."""

THREAD_BYTES: Final = 1 << 20
"""Bytes of the inputs that one thread of native rows gets at least; with fewer, starting it costs
more than it gains. Not measured: no figure is on record."""

WEIGHTED_VALUES: Final = 1 << 15
"""Values for which native rows form weights and coefficients at a time, in float64: 256 KiB an
array, which stay in the cache. Not measured: no figure is on record."""

STACK_BYTES: Final = 256 << 10
"""Bytes of all inputs of one stack of small evaluations on a GPU: enough to hide the cost of
torch's calls, few enough to stay in the cache. Not measured: written without a GPU."""

SUMMED_IN_PYTHON: Final = 1024
"""Values of an evaluation up to which `math.fsum` adds them up: one call of torch for each
evaluation of a stack takes longer. Not measured: no figure is on record."""

STAGED_BYTES: Final = 64 << 10
"""Bytes of a tensor from which it is copied to a GPU through pinned slabs; a plain copy of fewer
is done before the preparations would be. Not measured: docs/decisions/0015 was written without a
GPU."""

SLAB_BYTES: Final = 4 << 20
"""Bytes of one slab of pinned memory: enough to hide the cost of a copy, few enough for the copies
of device and processor to overlap. Not measured, for the same reason."""

SLAB_COUNT: Final = 8
"""Slabs for each direction, 64 MiB in all. Not measured, for the same reason."""

USABLE_SHARE: Final = 0.9
"""Share of the device memory free at the start that evaluations may use; libraries take workspaces
of their own, and freed blocks do not always fit the next request. Not measured: a safety margin."""
