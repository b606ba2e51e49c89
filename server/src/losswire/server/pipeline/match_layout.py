"""How the inputs of a request fit the layouts of a record."""

from collections.abc import Mapping

from losswire.server.catalogue.layouts import Layout, Spec
from losswire.server.catalogue.shapes import Bindings
from losswire.server.catalogue.value_rules import Array
from losswire.wire import wire_type_of


class Attempt:
    """How the inputs fit one layout."""

    def __init__(self, layout: Layout, arrays: Mapping[str, Array]) -> None:
        self.layout = layout
        self.bindings = Bindings()
        self.misfits: list[str] = []
        self.progress = len(arrays)
        for position, (name, array) in enumerate(arrays.items()):
            spec = layout.inputs.get(name)
            wire_type = wire_type_of(array.dtype)
            fits = (
                spec is not None
                and wire_type is not None
                and wire_type.name in spec.dtypes
                and spec.axes.match(array.shape, self.bindings)
            )
            if not fits:
                self.misfits.append(name)
                self.progress = min(self.progress, position)

    @property
    def fits(self) -> bool:
        """Whether every input fits."""
        return not self.misfits

    def spec(self, name: str) -> Spec:
        """Return the spec of an input in this layout."""
        return self.layout.inputs[name]
