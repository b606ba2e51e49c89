"""The losses. Every module here is searched for records; see CONTRIBUTING.md."""

import importlib
import pkgutil

from losswire.server.catalogue.registry import Registry, records_in


def builtin_registry() -> Registry:
    """Return a registry of every loss in this package."""
    registry = Registry()
    for found in pkgutil.iter_modules(__path__, __name__ + "."):
        for record in records_in(importlib.import_module(found.name)):
            registry.add(record)
    return registry
