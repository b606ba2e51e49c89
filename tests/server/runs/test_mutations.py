"""Whatever a summary says, it is kept with figures that follow from it, or refused."""

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from losswire.server.errors import InvalidRunError
from losswire.server.runs.content import row_of
from losswire.v1 import run_service_pb2
from tests.conftest import THOROUGH
from tests.support.runs import run, summary

TRIES = 20_000 if THOROUGH else 2_000
_SLICES = {"country": ["DE", "FR", "DE"]}
_NUMBERS: Sequence[float] = (math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308, 5e-324)
_VALUES: Mapping[type, Sequence[Any]] = {
    float: _NUMBERS,
    int: (-1, 0, 1, 5, 2**31 - 1, -(2**31)),
    bool: (True, False),
    str: ("", "other"),
}
"""What each kind of field is set to."""


def _fields(message: Message) -> Iterator[tuple[Message, str, Any]]:
    """Yield every field that is set, at any depth, with its message, name and value."""
    for field, value in message.ListFields():
        yield message, field.name, value
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in [value] if isinstance(value, Message) else value:
            yield from _fields(each)


def _change(message: Message, numbers: random.Random) -> None:
    """Change one field: another value, one more, one less, or none."""
    owner, name, value = numbers.choice(list(_fields(message)))
    known = _VALUES.get(type(value))
    if known is not None and numbers.random() < 0.8:
        setattr(owner, name, numbers.choice(known))
    elif known is None and len(_VALUES.get(_kind(value), ())) and numbers.random() < 0.8:
        other = numbers.choice(_VALUES[_kind(value)])
        numbers.choice((value.append, lambda each: value.__setitem__(0, each)))(other)
    else:
        owner.ClearField(name)


def _kind(value: Any) -> type:  # noqa: ANN401 (of any field)
    """Return the type of the elements of a repeated field of scalars."""
    repeated = not isinstance(value, Message) and hasattr(value, "append") and len(value)
    return type(value[0]) if repeated else object


def test_of_changed_numbers_figures_follow_or_a_refusal() -> None:
    """Never another error, whichever field is changed, nor a warning of numpy's."""
    numbers = random.Random(5)  # noqa: S311 (not a secret)
    whole = [
        run(summary=summary([1.0, 2.0, 6.0], _SLICES)),
        run(summary=summary([[1.0, 2.0, 6.0], [2.0, 2.0, 2.0]], _SLICES, candidates=("a", "b"))),
    ]
    for each in whole[1:]:
        each.summary.total.clusters.open.add(number=1, sums=[1.0] * 4)
    outcomes: Counter[str] = Counter()
    for _ in range(TRIES):
        changed = run_service_pb2.Run()
        changed.CopyFrom(numbers.choice(whole))
        for _ in range(numbers.choice((1, 1, 2, 4))):
            if changed.HasField("summary"):
                _change(changed.summary, numbers)
        try:
            row_of(changed, "")
        except InvalidRunError as error:
            outcomes["refused"] += bool(error.violations)
        else:
            outcomes["kept"] += 1
    assert sum(outcomes.values()) == TRIES
    assert min(outcomes.values()) > TRIES / 20, outcomes
