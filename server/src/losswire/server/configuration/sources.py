"""Reads the settings: a flag counts more than a variable, and that more than a key of a file."""

import logging
import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from losswire.server.address import StartError
from losswire.server.configuration.schema import PREFIX, Configuration

CONFIG_VARIABLE: Final = f"{PREFIX}CONFIG"
"""The variable that names the file of settings."""

_OTHERS: Final = (
    *("TARGET", "TOKEN", "TOKEN_FILE", "WAIT_FOR_READY"),  # of the SDK and its command line
    *("TLS", "TLS_CA", "TLS_CLIENT_CERT", "TLS_CLIENT_KEY"),
    "CONFIG",
    "THOROUGH",  # of the tests
)
"""Variables with the same prefix that are no settings."""
_OF_BUILDS: Final = f"{PREFIX}REQUIRE_"
"""What variables of builds and tests begin with."""

_log = logging.getLogger(__name__)


def flag_name(name: str) -> str:
    """Return the flag of a setting."""
    return f"--{name.replace('_', '-')}"


def variable_name(name: str) -> str:
    """Return the variable of a setting."""
    return f"{PREFIX}{name.upper()}"


class Found:
    """The settings of one server, and where each comes from."""

    def __init__(self, flags: Mapping[str, Any], file: str) -> None:
        """Read them; `flags` are those that were given, `file` is a path or empty.

        Raises StartError for a value that is not possible, a file that cannot be read, and a key
        that is no setting.
        """
        self._flags = flags
        self._file = file
        self._in_file = _read(file)
        for name in self._in_file:
            if name not in Configuration.model_fields:
                message = f"{file}: {name}: there is no such setting{_nearest(name)}"
                raise StartError(message)
        try:
            self.configuration = _with_file(self._in_file)(**flags)
        except ValidationError as error:
            raise StartError("\n".join(self._lines(error))) from None

    def origin(self, name: str) -> str:
        """Say where the value of a setting comes from."""
        if name in self._flags:
            return flag_name(name)
        if variable_name(name) in os.environ:
            return variable_name(name)
        return f"{self._file}: {name}" if name in self._in_file else "default"

    def warn_of_variables(self) -> None:
        """Log the variables that look like settings, and are none."""
        known = {variable_name(each) for each in Configuration.model_fields}
        known |= {f"{PREFIX}{each}" for each in _OTHERS}
        for name in sorted(os.environ):
            if name.startswith(_OF_BUILDS):
                continue
            if name.startswith(PREFIX) and name not in known:
                nearest = get_close_matches(name, known, 1)
                text = f"; {nearest[0]} is one" if nearest else ""
                _log.warning("the variable %s is no setting%s", name, text)

    def _lines(self, error: ValidationError) -> Iterator[str]:
        for each in error.errors():
            name = str(each["loc"][0])
            text = each["msg"].removeprefix("Value error, ")
            yield f"{self.origin(name)}: {text}"


def _read(file: str) -> dict[str, Any]:
    """Return what a file has; nothing without one. StartError when it cannot be read."""
    if not file:
        return {}
    try:
        return tomllib.loads(Path(file).read_text("utf-8"))
    except OSError as error:
        message = f"--config {file}: {error.strerror}"
        raise StartError(message) from error
    except ValueError as error:
        message = f"--config {file}: {error}"
        raise StartError(message) from error


def _with_file(content: dict[str, Any]) -> type[Configuration]:
    """Return the settings with what a file has as the source that counts least."""

    class WithFile(Configuration):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del dotenv_settings, file_secret_settings
            return (init_settings, env_settings, InitSettingsSource(settings_cls, content))

    return WithFile


def _nearest(name: str) -> str:
    found = get_close_matches(name.replace("-", "_"), Configuration.model_fields, 1)
    return f"; did you mean {found[0]}?" if found else ""
