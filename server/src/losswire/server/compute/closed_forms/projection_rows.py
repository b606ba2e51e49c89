"""The numbers of each row of linear cross entropy, and the coefficients of its classes.

A row's coefficients are `dense` ones, for all classes, and a `share` of its target class.
Class probabilities are dense; class indices have a share, and dense ones by label smoothing.
"""

import math

import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import Tiled
from losswire.server.compute.closed_forms.blocks import Buffers

_LOG2_E = math.log2(math.e)


class Coefficients:
    """The coefficients of all rows and heads, and the gradients with respect to them."""

    def __init__(self, tiled: Tiled, rows: int, heads: int, classes: int) -> None:
        """Read targets, class weights and label smoothing."""
        self.dtype = tiled.dtype
        target, weight = tiled.inputs["target"], tiled.inputs.get("weight")
        self.smoothing: float = tiled.options["label_smoothing"]
        self.even = self.smoothing / classes
        """What smoothing adds to each class's probability."""
        self.weight = None if weight is None else weight.to(self.dtype)
        self.removed = None if tiled.removed is None else tiled.removed.view(rows, heads)
        given = tiled.coefficients
        self.scale = None if given is None else given.reshape(rows, heads)
        """The gradient with respect to each value, in float64."""
        self.distribution: Tensor | None = None
        self.chosen: Tensor | None = None
        if target.is_floating_point():
            self.distribution = target.view(rows, classes, heads)
        else:
            chosen = target.long().view(rows, heads)
            self.chosen = chosen if self.removed is None else chosen.masked_fill(self.removed, 0)
        gradients = tiled.gradients
        found = gradients.get("target")
        self.target_gradient = None if found is None else found.view(rows, classes, heads)
        self.weight_gradient = gradients.get("weight")
        self.weight_sums = torch.zeros(
            classes if "weight" in gradients else 0, dtype=torch.float64, device=target.device
        )

    def share(self, group: slice, head: int) -> Tensor | None:
        """Return the coefficient of each row's target class, in float64; None: all are dense."""
        if self.chosen is None:
            return None
        chosen = self.chosen[group, head]
        kept = 1.0 - self.smoothing
        if self.weight is None:
            return torch.full_like(chosen, kept, dtype=torch.float64)
        return self.weight.double()[chosen] * kept

    def dense(self, rows: slice, tile: slice, head: int) -> tuple[Tensor | None, Tensor | None]:
        """Return the dense coefficients of a tile, (rows or 1, classes); None: all are 0.

        And where the probability is 0, so that an infinite distance adds 0; None: nowhere. A class
        weight of 0 multiplies, as in torch.
        """
        probabilities = self._probabilities(rows, tile, head)
        if probabilities is not None:
            impossible = probabilities == 0
            if self.weight is not None:
                probabilities.mul_(self.weight[tile])
            return probabilities, impossible
        return self._evenly(tile), None

    def _evenly(self, tile: slice) -> Tensor | None:
        """Return what label smoothing adds to each class beside a target class."""
        weight = None if self.weight is None else self.weight[tile]
        if not self.smoothing or self.chosen is None:
            return None
        if weight is None:
            even = torch.full((), self.even, dtype=self.dtype, device=self.chosen.device)
            return even.expand(1, _width(tile))
        evenly: Tensor = weight * self.even
        return evenly.unsqueeze(0)

    def _probabilities(self, rows: slice, tile: slice, head: int) -> Tensor | None:
        """Return a new tensor of smoothed probabilities, 0 in removed rows."""
        if self.distribution is None:
            return None
        given: Tensor = self.distribution[rows, tile, head].to(self.dtype, copy=True)
        if self.removed is not None:
            given.masked_fill_(self.removed[rows, head].unsqueeze(1), 0.0)
        if self.smoothing:
            given.mul_(1.0 - self.smoothing).add_(self.even)
        return given

    def differentiate(self, rows: "Rows", logits: Tensor, slab: slice, tile: slice) -> None:
        """Fill the gradients with respect to target and class weights, of some logits."""
        if self.target_gradient is None and self.weight_gradient is None:
            return
        whole = slice(rows.group.start + slab.start, rows.group.start + slab.stop)
        scale = rows.scale[slab].unsqueeze(1)
        below = (rows.reference[slab] + rows.log_total[slab]).unsqueeze(1) - logits
        given = self._probabilities(whole, tile, rows.head)
        if self.weight_gradient is not None and given is not None:
            self.weight_sums[tile] += select_product(below, scale * given).sum(0)
        if self.target_gradient is not None:
            factor = scale * (1.0 - self.smoothing)
            if self.weight is not None:
                factor = factor * self.weight[tile]
            found = (below * factor).masked_fill_(scale == 0, 0.0)
            self.target_gradient[whole, tile, rows.head].copy_(found)

    def store(self) -> None:
        """Store the gradient with respect to the class weights."""
        if self.weight_gradient is not None:
            self.weight_gradient.copy_(self.weight_sums)


class Rows:
    """Some rows of one head, observed a tile of classes at a time. All numbers are float64."""

    def __init__(
        self, coefficients: Coefficients, group: slice, head: int, dtype: torch.dtype
    ) -> None:
        """Begin before the first class."""
        self.coefficients = coefficients
        self.group = group
        self.head = head
        self.dtype = dtype
        chosen = coefficients.chosen
        self.chosen = None if chosen is None else chosen[group, head]
        self.share = coefficients.share(group, head)
        removed = coefficients.removed
        self.removed = None if removed is None else removed[group, head]
        device = coefficients.weight_sums.device
        like = torch.empty(_width(group), dtype=torch.float64, device=device)
        self.highest = torch.full_like(like, -math.inf)
        self.reference = torch.zeros_like(like)
        """The highest logit; 0 while all are -inf, whose distance from it must not be NaN."""
        self.total = torch.zeros_like(like)
        """The sum of exp(logit - reference)."""
        self.dense_total = torch.zeros_like(like)
        """The sum of the dense coefficients."""
        self.dense_terms = torch.zeros_like(like)
        """The sum of the dense coefficients times (reference - logit)."""
        self.picked = torch.zeros_like(like)
        """The logit of the target class."""
        self.log_total = self.scale = self.factor = like

    def observe(self, logits: Tensor, slab: slice, tile: slice, buffers: Buffers) -> None:
        """Add the logits of some classes; `slab` counts rows from the first one."""
        highest = self.highest[slab]
        higher = torch.maximum(highest, logits.amax(1).double())
        reference = higher.where(higher != -math.inf, 0.0)
        moved = reference - self.reference[slab]
        below = torch.sub(self._in(reference), logits, out=buffers("below", logits))
        dense, impossible = self._dense(slab, tile)
        if dense is not None:
            terms = below * dense
            if impossible is not None:
                terms.masked_fill_(impossible & below.isposinf(), 0.0)
            self.dense_terms[slab] += self.dense_total[slab] * moved
            self.dense_terms[slab] += terms.sum(1, dtype=torch.float64)
            self.dense_total[slab] += dense.sum(1, dtype=torch.float64)
        if self.chosen is not None:
            inside, index = self._inside(slab, tile)
            picked = logits.gather(1, index).squeeze(1).double()
            self.picked[slab] = picked.where(inside, self.picked[slab])
        powers = torch.exp2(below.mul_(-_LOG2_E), out=below)
        total = self.total[slab] * torch.exp(highest - reference)
        self.total[slab] = total + powers.sum(1, dtype=torch.float64)
        self.highest[slab] = higher
        self.reference[slab] = reference

    def values(self) -> Tensor:
        """Return the values, once all classes were observed."""
        self.log_total = self.total.log()
        found = self.dense_terms + self.dense_total * self.log_total
        if self.share is not None:
            below = self.reference - self.picked + self.log_total
            # With a smoothing of 1 the probability of the target itself is 0.
            found = found + below * self.share if self.coefficients.smoothing < 1 else found
        return found if self.removed is None else found.masked_fill(self.removed, 0.0)

    def prepare_gradients(self) -> None:
        """Find the factors of the gradients."""
        scale = self.coefficients.scale
        if scale is None:
            return
        self.scale = scale[self.group, self.head]
        weight = self.dense_total if self.share is None else self.dense_total + self.share
        self.factor = self.scale * weight / self.total

    def to_gradient(self, logits: Tensor, slab: slice, tile: slice) -> None:
        """Replace logits by the gradient with respect to them."""
        logits.sub_(self._in(self.reference[slab])).mul_(_LOG2_E)
        torch.exp2(logits, out=logits).mul_(self._in(self.factor[slab]))
        scale = self.scale[slab]
        dense, _ = self._dense(slab, tile)
        if dense is not None:
            logits.sub_(dense * self._in(scale))
        if self.chosen is not None and self.share is not None:
            inside, index = self._inside(slab, tile)
            taken = (scale * self.share[slab]).neg().where(inside, 0.0)
            logits.scatter_add_(1, index, self._in(taken))
        if self.removed is not None:
            logits.masked_fill_(self.removed[slab].unsqueeze(1), 0.0)

    def _dense(self, slab: slice, tile: slice) -> tuple[Tensor | None, Tensor | None]:
        start = self.group.start
        rows = slice(start + slab.start, start + slab.stop)
        return self.coefficients.dense(rows, tile, self.head)

    def _inside(self, slab: slice, tile: slice) -> tuple[Tensor, Tensor]:
        """Return which target classes belong to a tile, and their positions there."""
        if self.chosen is None:
            message = "class probabilities have no target class"
            raise TypeError(message)
        chosen = self.chosen[slab] - tile.start
        inside = (chosen >= 0) & (chosen < _width(tile))
        return inside, chosen.where(inside, 0).unsqueeze(1)

    def _in(self, numbers: Tensor) -> Tensor:
        """Return numbers of rows in the compute dtype, to be broadcast along the classes."""
        return numbers.to(self.dtype).unsqueeze(1)


def select_product(terms: Tensor, factors: Tensor) -> Tensor:
    """Return the products, exactly 0 where the factor is: 0 x inf is NaN."""
    return (terms * factors).masked_fill_(factors == 0, 0.0)


def _width(part: slice) -> int:
    length: int = part.stop - part.start
    return length
