"""The registry of losses, by name."""

import difflib
from collections.abc import Iterable, Iterator
from types import ModuleType

from losswire.server.catalogue.record import LossRecord
from losswire.server.errors import UnknownLossError

_LONGEST_NAME = 64
"""Characters of an unknown name that are compared with the known names."""


class Registry:
    """The losses that a server has, by name."""

    def __init__(self, records: Iterable[LossRecord] = ()) -> None:
        """Begin with some records."""
        self._records: dict[str, LossRecord] = {}
        for record in records:
            self.add(record)

    def add(self, record: LossRecord) -> None:
        """Add a loss. Raises ValueError when another loss has its name."""
        if self._records.setdefault(record.name, record) is not record:
            message = f"there are two losses named {record.name}"
            raise ValueError(message)

    def find(self, name: str) -> LossRecord:
        """Return a loss. Raises UnknownLossError, with the nearest names, when there is none."""
        record = self._records.get(name)
        if record is None:
            # A caller's name may be as long as a message.
            nearest = difflib.get_close_matches(name[:_LONGEST_NAME], self._records, n=3)
            raise UnknownLossError(name, nearest)
        return record

    def __contains__(self, name: object) -> bool:
        """Return whether there is a loss of this name."""
        return name in self._records

    def __iter__(self) -> Iterator[LossRecord]:
        """Return all losses, ordered by name."""
        return iter(sorted(self._records.values(), key=lambda record: record.name))


def records_in(module: ModuleType) -> Iterator[LossRecord]:
    """Return the losses that a module defines."""
    return (each for each in vars(module).values() if isinstance(each, LossRecord))
