"""What `--print-config` shows: a file of settings, with where each value comes from."""

import json
from collections.abc import Iterator
from typing import Any

from losswire.server.configuration.schema import Configuration
from losswire.server.configuration.sources import Found
from losswire.server.runs.address import StoreSettingError, parse_store


def lines_of(found: Found) -> Iterator[str]:
    """Write settings as TOML, in the order of the help; secrets are hidden."""
    width = max(map(len, Configuration.model_fields))
    for name in Configuration.model_fields:
        value = getattr(found.configuration, name)
        written = _toml(_shown(name, value))
        comment = "# " if value is None else ""
        yield f"{comment}{name:{width}} = {written}  # {found.origin(name)}"


def _shown(name: str, value: Any) -> Any:  # noqa: ANN401 (of any setting)
    """Return a value that may be shown: the address of a store without its password."""
    if name == "store" and value:
        try:
            address = parse_store(value)
        except StoreSettingError:
            return "(hidden: it cannot be read)"
        return address.text if address and "://" in value else value
    return value


def _toml(value: Any) -> str:  # noqa: ANN401 (likewise)
    """Write a value; TOML has JSON's texts, numbers, lists and bools."""
    if value is None:
        return '"a quarter of the budget"'
    return json.dumps(value, ensure_ascii=False)
