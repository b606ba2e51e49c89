"""Losses written into a folder for a server process: one that waits, and ones that leak."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Final

from tests.support.harness import path_with
from tests.support.vitals import wait_until

_HEAD: Final = """
from torch import Tensor
from losswire.server.declare import Input, Terms, floats, layout, loss

@loss(
    layouts=(layout("any", input=floats("*S"), values="*S"),),
    inputs={"input": Input(meaning="Numbers.", differentiable=True)},
    source="tests",
)
"""

_GATED: Final = """
import time
from pathlib import Path
{head}
def gated_loss(input: Tensor) -> Terms:
    \"\"\"Each number is its own loss; notes the first and waits while the gate is closed.\"\"\"
    with Path({computed!r}).open("a") as file:
        print(float(input.detach().flatten()[0]), file=file)
    while Path({closed!r}).exists():
        time.sleep(0.002)
    return Terms(input * 1)
"""

_LEAKING: Final = """
import os, threading, time
{head}
def leaking_loss(input: Tensor) -> Terms:
    \"\"\"Each number is its own loss; memory, a descriptor and a thread of each one remain.\"\"\"
    KEPT.append((input.detach().clone(), os.dup(0)))
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return Terms(input * 1)

KEPT = []
"""


@dataclass(frozen=True)
class MadeLoss:
    """A module with one loss of its name."""

    folder: Path
    name: str

    @property
    def arguments(self) -> tuple[str, str]:
        """The arguments of `serve` that load it."""
        return ("--losses", self.name)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which the server finds it."""
        return {"PYTHONPATH": path_with(self.folder)}

    def write(self, source: str, **values: str) -> None:
        """Write the module."""
        text = dedent(source).format(head=dedent(_HEAD).strip(), **values)
        (self.folder / f"{self.name}.py").write_text(text, "utf-8")


class GatedLoss(MadeLoss):
    """`gated_loss`, whose evaluations wait as long as its gate is closed."""

    def __init__(self, folder: Path) -> None:
        """Write it into a folder; the gate is open."""
        super().__init__(folder, "gated_loss")
        self.write(_GATED, computed=str(self._computed), closed=str(self._closed))

    @property
    def _computed(self) -> Path:
        return self.folder / "computed"

    @property
    def _closed(self) -> Path:
        return self.folder / "closed"

    @property
    def computed(self) -> list[float]:
        """The first numbers of the evaluations that were begun."""
        if not self._computed.exists():
            return []
        return [float(line) for line in self._computed.read_text("utf-8").split()]

    def close(self) -> None:
        """Close the gate, and forget what was computed."""
        self._computed.unlink(missing_ok=True)
        self._closed.touch()

    def open(self) -> None:
        """Open the gate."""
        self._closed.unlink(missing_ok=True)

    @property
    def is_reached(self) -> bool:
        """Whether an evaluation was begun since the gate was closed."""
        return bool(self.computed)

    def wait_until_reached(self) -> None:
        """Wait until an evaluation waits at the gate."""
        wait_until(lambda: self.is_reached)


def leaking_loss(folder: Path) -> MadeLoss:
    """Write `leaking_loss`, which leaks in every way."""
    made = MadeLoss(folder, "leaking_loss")
    made.write(_LEAKING)
    return made
