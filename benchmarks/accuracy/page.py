"""The page of errors: docs/accuracy.md."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from benchmarks.accuracy.forms import DISTRIBUTIONS
from benchmarks.accuracy.measure import SIZES, Errors, Key, above, joined, sizes_of

_INTRODUCTION: Final = """\
# Accuracy

With `engine = auto` results err no more than torch's: the root-mean-square (rms) error of every
closed form is no larger than that of torch's function, though a single result may happen to be
nearer in either. This page shows both. One command measures them and writes the page:

```sh
python -m benchmarks.accuracy
```

## How it is measured

- **The same inputs.** Each draw is evaluated by a server, through the SDK, and by torch in its own
  process: `torch.nn.functional` and its gradients. Inputs of 16 bits are computed in float32 by
  both.
- **Exact results** follow from the formulas in numpy: in float64, and for float64 in long double.
- **Two paths.** `native` is a server with the native library, `torch blocks` one without it: the
  closed forms in torch from 512 KiB of inputs on, and below that the formula with torch's autograd.
- **What is compared**: the values (reduction `none`), the loss of the reductions `sum` and `mean`,
  and with each the gradient of every input that the closed form differentiates; with `none` from
  random gradients of the values. Gradients of inputs of 16 bits are asked for in float32, except
  that of `mean`, which is rounded to the type of the input.
- **Distributions**: {distributions}. `normal` is standard normal numbers, or logits of
  such; `large` logits or differences between -30 and 30; `one-hot` targets of 0 and 1, and
  predictions near their targets; `tiny` numbers, or probabilities, of down to 1e-8.
- **Sizes**: about {sizes} elements; float64 up to {double}.
  The number of elements is drawn, too, because the reciprocal of each rounds differently.
- **Ratio.** With the mean squared errors o of ours and t of torch's, each draw has the excess
  (o - t) / (o + t). For the mean excess e of all draws, the ratio of the rms errors is
  sqrt((1 + e) / (1 - e)): 1 where both round alike, below 1 where ours is nearer. So large and
  small draws, sizes and distributions weigh the same.
- **Above torch** is a ratio that is above 1.0005 and whose mean excess is more than four standard
  errors above 0: of all draws of a row, of those of one distribution, of one size, or of both. The
  command fails if there is one, and lists it at the end of this page.

## Figures
"""
_NOTES: Final = """\
Each row is a form and a type. A figure is the ratio over all draws; the worst of gradients where
there are several; behind one that is greater than 1, its standard error. In parentheses is our rms
error in units of the type's epsilon, relative to the rms of the exact results, of standard normal
inputs of about {size} elements.
"""
_QUANTITIES: Final = ("values", "sum", "mean")
_EPSILONS: Final = {
    "float32": 2.0**-23,
    "float64": 2.0**-52,
    "bfloat16": 2.0**-23,
    "float16": 2.0**-23,
}
"""Of the type that is computed in."""
_OWN_EPSILONS: Final = {**_EPSILONS, "bfloat16": 2.0**-7, "float16": 2.0**-10}
_SHOWN_SIZE: Final = 10_007


def render(cells: Mapping[Key, Errors], machine: str) -> str:
    """Return the page."""
    size = min(_SHOWN_SIZE, max(key.size for key in cells))
    sizes = ", ".join(f"{each:,}".replace(",", " ") for each in SIZES)
    double = f"{sizes_of('float64', SIZES[-1])[-1]:,}".replace(",", " ")
    introduction = _INTRODUCTION.format(
        distributions=", ".join(f"`{each}`" for each in DISTRIBUTIONS), sizes=sizes, double=double
    )
    parts = [introduction, machine + "\n", _NOTES.format(size=f"{size:,}".replace(",", " "))]
    rows = joined(cells, distribution="all", size=0)
    for path in dict.fromkeys(key.path for key in cells):
        parts += [f"### {path.capitalize()}\n", _table(rows, cells, path, size)]
    parts += ["## Above torch\n", _list(above(cells))]
    return "\n".join(parts)


def _table(rows: Mapping[Key, Errors], cells: Mapping[Key, Errors], path: str, size: int) -> str:
    names = [f"{part}{each}" for part in ("", "gradient of ") for each in _QUANTITIES]
    lines = [" | ".join(("Form", "Type", *names)), " | ".join(["---"] * (len(names) + 2))]
    wanted = dict.fromkeys((key.form, key.dtype) for key in rows if key.path == path)
    for form, dtype in wanted:
        figures = [
            _figure(rows, cells, Key(form, path, dtype, "all", 0, name), size) for name in names
        ]
        lines.append(" | ".join((form, dtype, *figures)))
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _figure(rows: Mapping[Key, Errors], cells: Mapping[Key, Errors], row: Key, size: int) -> str:
    """Return the ratio of a quantity, the worst of several gradients, and the error."""
    found = [key for key in rows if key._replace(quantity="") == row._replace(quantity="")]
    same = [key for key in found if key.quantity.partition(",")[0] == row.quantity]
    worst = max(same, key=lambda key: rows[key].ratio)
    shown = cells[worst._replace(distribution=DISTRIBUTIONS[0], size=size)]
    own = row.quantity == "gradient of mean"
    epsilon = (_OWN_EPSILONS if own else _EPSILONS)[row.dtype]
    error = (shown.ours / shown.draws) ** 0.5 / epsilon
    errors = rows[worst]
    scatter = f" ± {errors.scatter:.3f}" if errors.ratio > 1 else ""
    return f"{errors.ratio:.3f}{scatter} ({error:.2g})"


def _list(found: Mapping[Key, Errors]) -> str:
    if not found:
        return "None.\n"
    return "".join(f"- {line}\n" for line in lines_of(found))


def lines_of(found: Mapping[Key, Errors]) -> Iterator[str]:
    """Return a line for each of some cells."""
    ordered: Iterable[tuple[Key, Errors]] = sorted(found.items())
    for key, errors in ordered:
        size = f"about {key.size} elements" if key.size else "all sizes"
        yield (
            f"{key.form}, {key.path}, {key.dtype}, {key.quantity}: {key.distribution}, {size}: "
            f"ratio {errors.ratio:.4f} of {errors.draws} draws, "
            f"{errors.deviation:.1f} standard errors"
        )
