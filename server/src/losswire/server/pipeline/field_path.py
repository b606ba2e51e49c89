"""Paths of fields in messages, as violations name them."""

from typing import Final

_SHOWN_CHARACTERS: Final = 64
"""The characters of a name, made up by the caller, that are repeated in a path."""


def path(field: str, name: str) -> str:
    """Return the path of a map's entry, such as `inputs["target"]`; long names are cut."""
    shown = name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "..."
    return f'{field}["{shown}"]'
