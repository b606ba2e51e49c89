"""The service: losses and exact gradients over gRPC, computed by torch."""

from importlib.metadata import version

__version__: str = version("losswire-server")
