"""The sizes that choose how evaluations are computed; see `losswire.server.thresholds`."""

from typing import Final

_MIB: Final = 1 << 20

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

LOGITS_TILE_BYTES: Final = 8 * _MIB
"""Bytes of one tile of logits that are made twice: 512 rows against 16,000 classes took 0.84 s with
tiles of 4 and 8 MiB, 0.85 s of 16 and 0.90 s of 32 (0022)."""

FEW_CLASSES: Final = 32
"""Classes of a tile below which products over rows are added up in parts: of 1,030 rows x 7 classes
the product in one errs by 4.1e-7, in parts by 2.1e-7, torch's of two heads together by 2.5e-7."""

SUMMED_ROWS: Final = 128
"""Rows of such a part: with 256 of 300 rows x 7 classes the error is 2.3e-7, torch's 2.2e-7."""

HEAD_TILE_BYTES: Final = 16 * _MIB
"""Bytes of the rows of a projection head that are converted at a time, and of their gradient:
chosen with the setting above (0022)."""

KEPT_LOGITS_BYTES: Final = 64 * _MIB
"""Bytes of the logits that are kept for the second pass. 520 rows against a float32 head of 32,000
classes took 2.46 s in 32 MiB, 2.89 s in 16 and 3.57 s in 8; made twice 3.18 s (0022)."""

KEPT_MIN_ROWS: Final = 192
"""Rows whose logits have to fit at least to be kept. With a head in bfloat16, which is converted
for each group of rows, 260 took 2.18 s, 130 took 3.01 s, and making logits twice 2.53 s (0022)."""

TILE_MIN_CLASSES: Final = 256
"""Classes of one tile at least, whatever its bytes. Not measured: products of fewer rows or columns
are slower for each multiplication."""

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

SLICE_BYTES: Final = 8 * _MIB
"""Bytes of all inputs that each thread of native rows computes before it makes room for brief
evaluations: of cross entropy with its gradient, some 2 ms. 4096 x 4096 takes as long in slices."""
