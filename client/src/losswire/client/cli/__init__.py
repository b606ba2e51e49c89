"""The command line of the SDK: `losswire`."""

from losswire.client.cli._main import main

__all__ = ["main"]
