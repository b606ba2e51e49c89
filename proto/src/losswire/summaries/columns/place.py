"""Where a value of the data is, in the words of errors."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A part of the data: a file, or the argument that holds it."""

    name: str
    """The file's path, or the argument: `batches`, `batches[3]`."""
    first_row: int = 0
    """The number of its first row."""
    is_dict: bool = False
    """Whether its columns are the items of a dict."""

    def column(self, name: str) -> str:
        """Return the words for one column."""
        return f'{self.name}["{name}"]' if self.is_dict else f'{self.name}, column "{name}"'

    def row(self, index: int) -> str:
        """Return the words for one row, counted from the first of these."""
        return f"row {self.first_row + index}"
