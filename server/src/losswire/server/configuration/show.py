"""What `--print-config` shows: a file of settings, with where each value comes from."""

import json
from collections.abc import Iterator
from typing import Any

from losswire.server.configuration.schema import Configuration
from losswire.server.configuration.sources import Found
from losswire.server.log import without_secrets


def lines_of(found: Found) -> Iterator[str]:
    """Write settings as TOML, in the order of the help; secrets are hidden."""
    width = max(map(len, Configuration.model_fields))
    for name in Configuration.model_fields:
        value = getattr(found.configuration, name)
        written = _toml(without_secrets(value) if name == "store" else value)
        comment = "# " if value is None else ""
        yield f"{comment}{name:{width}} = {written}  # {found.origin(name)}"


def _toml(value: Any) -> str:  # noqa: ANN401 (likewise)
    """Write a value; TOML has JSON's texts, numbers, lists and bools."""
    if value is None:
        return '"a quarter of the budget"'
    return json.dumps(value, ensure_ascii=False)
