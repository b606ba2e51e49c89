"""The version of the SDK, as it was installed."""

from importlib.metadata import version

__version__: str = version("losswire")
