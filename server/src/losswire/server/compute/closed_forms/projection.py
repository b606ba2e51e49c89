"""Cross entropy of a linear function in tiles: logits are made, used and overwritten.

With `z` the logits of a row and `a` its coefficients (target distribution times class weights),
the value is `sum(a * (lse - z))` and its gradient `sum(a) * exp(z - lse) - a`. A first pass over
the classes finds each row's `lse` and value, a second one the gradients. Between the two, logits
are kept if those of enough rows fit into a tile; otherwise the second pass makes them again.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import Tiled, TiledCost
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute import thresholds
from losswire.server.compute.closed_forms.blocks import Buffers
from losswire.server.compute.closed_forms.projection_rows import Coefficients, Rows

_MULTIPLICATIONS_A_STEP: Final = 25
_FLOAT64_BYTES: Final = 8
_SLAB_COPIES: Final = 6
"""The most temporaries of a slab at a time, in its dtype: two of them are float64."""


class Cut(NamedTuple):
    """How the logits are cut into tiles. It depends on shapes and dtypes only."""

    group_rows: int
    """The rows that take both passes together."""
    tile_rows: int
    tile_classes: int
    is_kept: bool
    """Whether the second pass finds the logits of the first one."""


class Sizes(NamedTuple):
    """The sizes that tiles and memory follow from."""

    rows: int
    heads: int
    classes: int
    features: int
    item_size: int
    """The bytes of a number of the compute dtype."""
    gradients: Mapping[str, bool]
    """The inputs with gradients: whether the gradient is rounded to another dtype."""
    is_converted: bool
    """Whether the head is in another dtype than the compute dtype."""

    def cut(self) -> Cut:
        """Cut the logits into tiles."""
        item = self.item_size
        head_classes = max(
            thresholds.TILE_MIN_CLASSES, thresholds.HEAD_TILE_BYTES // (item * self.features)
        )
        # A gradient that is rounded is rounded once, so that all rows are added up before.
        is_rounded = self.gradients.get("linear_weight", False)
        rows = thresholds.KEPT_LOGITS_BYTES // (item * self.classes)
        fits = rows >= self.rows or (not is_rounded and rows >= thresholds.KEPT_MIN_ROWS)
        if fits and self.gradients:
            rows = min(rows, self.rows)
            whole = not self.is_converted and not is_rounded
            classes = self.classes if whole else min(self.classes, head_classes)
            return Cut(rows, rows, classes, is_kept=True)
        most = thresholds.LOGITS_TILE_BYTES // item
        classes = max(thresholds.TILE_MIN_CLASSES, most // self.rows)
        classes = min(self.classes, head_classes, classes)
        return Cut(self.rows, min(self.rows, max(1, most // classes)), classes, is_kept=False)

    def scratch_bytes(self) -> int:
        """Return the most bytes of buffers that are held at a time."""
        cut, item = self.cut(), self.item_size
        width = self.classes if cut.is_kept else cut.tile_classes
        logits = cut.tile_rows * width * item
        head = cut.tile_classes * self.features * item
        # A copy of the features, in which removed rows are 0, and the gradients to be rounded.
        copies = 1 + self.gradients.get("input", False)
        size = logits + copies * cut.group_rows * self.features * item
        size += head * (self.is_converted + self.gradients.get("linear_weight", False))
        size += self.classes * self.heads * 2 * _FLOAT64_BYTES
        size += cut.group_rows * 16 * _FLOAT64_BYTES
        slab = max(thresholds.LOGITS_TILE_BYTES, cut.tile_classes * item)
        return size + _SLAB_COPIES * min(slab, cut.tile_rows * cut.tile_classes * item)

    def steps(self) -> int:
        """Return the nanoseconds of the matrix products on a CPU."""
        products = 1 + len({"input", "linear_weight"} & self.gradients.keys())
        if self.gradients and not self.cut().is_kept:
            products += 1
        multiplications = self.rows * self.heads * self.classes * self.features * products
        return multiplications // _MULTIPLICATIONS_A_STEP


def sizes_of(
    inputs: Mapping[str, Array | Tensor], gradients: Mapping[str, int], item_size: int
) -> Sizes:
    """Return the sizes of an evaluation, from the item sizes of gradients and compute dtype."""
    head = inputs["linear_weight"]
    classes, *positions, features = head.shape
    return Sizes(
        rows=math.prod(inputs["input"].shape[:-1]),
        heads=math.prod(positions),
        classes=classes,
        features=features,
        item_size=item_size,
        gradients={name: size != item_size for name, size in gradients.items()},
        is_converted=head.dtype.itemsize != item_size,
    )


def cost(inputs: Mapping[str, Array], gradients: Mapping[str, int], item_size: int) -> TiledCost:
    """Return the cost of `linear_cross_entropy`."""
    sizes = sizes_of(inputs, gradients, item_size)
    return TiledCost(sizes.scratch_bytes(), sizes.steps())


def linear_cross_entropy(tiled: Tiled) -> Tensor:
    """Return the values, in float64, and fill the gradients."""
    return _Projection(tiled).run()


class _Projection:
    """One evaluation, seen as rows and heads: an unbatched one has one row."""

    def __init__(self, tiled: Tiled) -> None:
        inputs = tiled.inputs
        self.tiled = tiled
        self.dtype = tiled.dtype
        self.head = inputs["linear_weight"]
        classes, features = self.head.shape[0], self.head.shape[-1]
        self.head = self.head.view(classes, -1, features)
        self.features = inputs["input"].view(-1, features)
        bias = inputs.get("linear_bias")
        self.bias = None if bias is None else bias.to(self.dtype).view(classes, -1)
        rows, heads = self.features.shape[0], self.head.shape[1]
        self.coefficients = Coefficients(tiled, rows, heads, classes)
        self.removed = None if tiled.removed is None else tiled.removed.view(rows, heads)
        wanted = {name: each.dtype.itemsize for name, each in tiled.gradients.items()}
        self.sizes = sizes_of(inputs, wanted, self.dtype.itemsize)
        self.cut = self.sizes.cut()
        self.buffers = Buffers()
        self.makes_products = bool({"input", "linear_weight", "linear_bias"} & wanted.keys())
        self.head_gradient = self._gradient("linear_weight", classes, heads, features)
        self.input_gradient = self._gradient("input", rows, features)
        self.bias_gradient = (
            self.features.new_zeros((classes, heads), dtype=torch.float64)
            if "linear_bias" in wanted
            else None
        )

    def _gradient(self, name: str, *shape: int) -> Tensor | None:
        found = self.tiled.gradients.get(name)
        return None if found is None else found.view(shape)

    def run(self) -> Tensor:
        """Compute all rows and heads."""
        count, heads = self.sizes.rows, self.sizes.heads
        values = self.features.new_empty((count, heads), dtype=torch.float64)
        for start in range(0, count, self.cut.group_rows):
            group = slice(start, min(start + self.cut.group_rows, count))
            gradient = self._input_buffer(group)
            for head in range(heads):
                rows = Rows(self.coefficients, group, head, self.dtype)
                features = self._features(group, head)
                self._observe(rows, features)
                values[group, head] = rows.values()
                if self.tiled.gradients:
                    self._differentiate(rows, features, gradient)
            if gradient is not None and self.input_gradient is not None:
                self._store_input(group, gradient)
        self._store_shared()
        return values

    def _observe(self, rows: Rows, features: Tensor) -> None:
        """Find the numbers of each row: the first pass over the classes."""
        for tile in self._tiles():
            head = self._head(tile, rows.head)
            for block in self._blocks(features):
                logits = self._logits(rows, features, head, tile, block)
                for slab in self._slabs(block, logits):
                    part = logits[slab.start - block.start : slab.stop - block.start]
                    rows.observe(part, slab, tile, self.buffers)
                self.tiled.pause()

    def _differentiate(self, rows: Rows, features: Tensor, gradient: Tensor | None) -> None:
        """Form the gradients: the second pass."""
        rows.prepare_gradients()
        for tile in self._tiles():
            head = self._head(tile, rows.head)
            direct, total = self._head_buffer(tile, rows.head)
            for block in self._blocks(features):
                if self.cut.is_kept:
                    logits = self._kept(tile, block)
                else:
                    logits = self._logits(rows, features, head, tile, block)
                for slab in self._slabs(block, logits):
                    part = logits[slab.start - block.start : slab.stop - block.start]
                    self.coefficients.differentiate(rows, part, slab, tile)
                    if self.makes_products:
                        rows.to_gradient(part, slab, tile)
                        if self.bias_gradient is not None:
                            sums = part.sum(0, dtype=torch.float64)
                            self.bias_gradient[tile, rows.head] += sums
                if gradient is not None:
                    is_first = not tile.start and not rows.head
                    removed = self._removed_here(rows, block)
                    _add_product(gradient[block], logits, head, removed, is_first=is_first)
                if total is not None:
                    is_first = not block.start and not (direct and rows.group.start)
                    _add_rows(total, logits, features[block], is_first=is_first)
                self.tiled.pause()
            if total is not None and not direct and self.head_gradient is not None:
                self.head_gradient[tile, rows.head].copy_(total)

    def _removed_here(self, rows: Rows, block: slice) -> Tensor | None:
        """Return which rows of a block one of several heads removes; None: none.

        Rows that every head removes are cleared in the end.
        """
        if self.sizes.heads == 1 or rows.removed is None:
            return None
        removed = rows.removed[block]
        return removed if bool(removed.any()) else None

    def _tiles(self) -> Iterator[slice]:
        """Yield the classes of each tile."""
        return _slices(self.sizes.classes, self.cut.tile_classes)

    def _blocks(self, features: Tensor) -> Iterator[slice]:
        """Yield the rows of each tile, counted from the first one of the group."""
        return _slices(len(features), self.cut.tile_rows)

    def _slabs(self, block: slice, logits: Tensor) -> Iterator[slice]:
        """Yield some rows of a tile at a time, which bounds temporaries of large tiles."""
        step = max(1, thresholds.LOGITS_TILE_BYTES // (logits.shape[1] * logits.itemsize))
        for each in _slices(block.stop - block.start, step):
            yield slice(block.start + each.start, block.start + each.stop)

    def _head(self, tile: slice, head: int) -> Tensor:
        """Return the rows of the matrix that make some logits, in the compute dtype."""
        part = self.head[tile, head]
        return part if part.dtype == self.dtype else self._buffer("head", part.shape).copy_(part)

    def _features(self, group: slice, head: int) -> Tensor:
        """Return the features in the compute dtype, with 0 in rows that are removed."""
        part = self.features[group]
        removed = None if self.removed is None else self.removed[group, head]
        if part.dtype == self.dtype and removed is None:
            return part
        copy = self._buffer("features", part.shape).copy_(part)
        return copy if removed is None else copy.masked_fill_(removed.unsqueeze(1), 0.0)

    def _logits(
        self, rows: Rows, features: Tensor, head: Tensor, tile: slice, block: slice
    ) -> Tensor:
        """Make the logits of a tile."""
        out = self._kept(tile, block)
        if self.bias is None:
            return torch.mm(features[block], head.t(), out=out)
        return torch.addmm(self.bias[tile, rows.head], features[block], head.t(), out=out)

    def _kept(self, tile: slice, block: slice) -> Tensor:
        """Return the memory of the logits of a tile."""
        count, width = block.stop - block.start, tile.stop - tile.start
        if not self.cut.is_kept:
            return self._buffer("logits", (count, width))
        # One tile after the other, each of them contiguous.
        flat = self._buffer("logits", (count * self.sizes.classes,))
        return flat[count * tile.start : count * tile.stop].view(count, width)

    def _input_buffer(self, group: slice) -> Tensor | None:
        """Return the memory in which the gradient of the features is added up."""
        found = self.input_gradient
        if found is None:
            return None
        part = found[group]
        return part if part.dtype == self.dtype else self._buffer("to input", part.shape)

    def _head_buffer(self, tile: slice, head: int) -> tuple[bool, Tensor | None]:
        """Return the memory in which the head's gradient is added up: whether it is the result."""
        if self.head_gradient is None:
            return False, None
        part = self.head_gradient[tile, head]
        if part.dtype == self.dtype:
            return True, part
        return False, self._buffer("to head", part.shape)

    def _buffer(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return reused memory in the compute dtype."""
        return self.buffers(name, self.features.new_empty((), dtype=self.dtype).expand(shape))

    def _store_input(self, group: slice, gradient: Tensor) -> None:
        """Store the gradient of some features; that of a removed row is 0 whatever the head is."""
        if self.input_gradient is None:
            return
        if self.removed is not None:
            gradient.masked_fill_(self.removed[group].all(1, keepdim=True), 0.0)
        if self.input_gradient.dtype != self.dtype:
            self.input_gradient[group].copy_(gradient)

    def _store_shared(self) -> None:
        """Store the gradients that were added up in float64."""
        bias = self._gradient("linear_bias", self.sizes.classes, self.sizes.heads)
        if bias is not None and self.bias_gradient is not None:
            bias.copy_(self.bias_gradient)
        self.coefficients.store()


def _add_product(
    total: Tensor,
    left: Tensor,
    right: Tensor,
    removed: Tensor | None = None,
    *,
    is_first: bool,
) -> None:
    """Add a product of matrices, exactly 0 in removed rows; the first replaces what is there."""
    if removed is not None:
        product = torch.mm(left, right).masked_fill_(removed.unsqueeze(1), 0.0)
        total.copy_(product if is_first else total + product)
    elif is_first:
        torch.mm(left, right, out=total)
    else:
        total.addmm_(left, right)


def _add_rows(total: Tensor, logits: Tensor, features: Tensor, *, is_first: bool) -> None:
    """Add the product over rows. Of few classes it is added up in parts, which loses less."""
    rows, classes = logits.shape
    step = thresholds.SUMMED_ROWS if classes < thresholds.FEW_CLASSES else max(rows, 1)
    for part in _slices(rows, step):
        first = is_first and not part.start
        _add_product(total, logits[part].t(), features[part], is_first=first)


def _slices(count: int, step: int) -> Iterator[slice]:
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
