"""The one who calls."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller who has proved who it is."""

    tenant: str
    """The name in the file of tokens, or the common name of the certificate."""
