"""The versions that receipts carry."""

from importlib.metadata import version

import torch

SERVER_VERSION: str = version("losswire-server")
TORCH_VERSION: str = torch.__version__
