"""The table of cases, and the processes that they need."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from benchmarks.worker import Spec

_ITEM_BYTES: Final = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table."""

    name: str
    driver: str
    """The client process, of `DRIVERS`."""
    spec: Spec
    repeats: int
    """How many calls a round has."""
    floor: bool = False
    """Whether this is something to compare with."""
    rate: bool = False
    """Whether calls a second are what matters, not the time of one."""
    workers: int = 0
    """How many workers the Losswire server has, of one thread each; 0: it has no supervisor."""

    @property
    def server(self) -> str | None:
        """The server process that it calls, of `SERVERS`."""
        if self.workers:
            return f"losswire workers {self.workers}"
        if self.driver.startswith("losswire"):
            return "losswire regions" if self.spec.work in SAME_MACHINE else "losswire"
        return {
            "echo": f"echo {self.spec.server}",
            "echo kept": f"echo {self.spec.server} kept",
        }.get(self.driver)

    @property
    def bytes_moved(self) -> int:
        """The bytes of the logits, or features, there and of their gradients back, in one call."""
        ways = 2 if self.spec.gradients else 1
        elements = self.spec.rows * self.spec.columns
        return ways * elements * _ITEM_BYTES[self.spec.dtype] * self.spec.batch


BLOCK_ROWS: Final = 64
"""The rows of the block that the huge call repeats."""

HUGE: Final = "huge tcp"
"""The name of the call that must not take memory."""

SAME_MACHINE: Final = ("in place", "copies", "local")
"""The cases of the server that shares memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large everything is."""

    sizes: Mapping[str, tuple[int, int]]
    """The shapes of the logits by name."""
    repeats: Mapping[str, int]
    """How many calls a round has, by size."""
    batch: int
    """How many evaluations EvaluateMany has."""
    huge_bytes: int
    """The logits of the call that must not take memory."""
    projected: tuple[int, int, int]
    """The rows, features and classes of the loss whose computing is the limit."""
    connections: int
    """How many connections call it at once."""
    server_options: tuple[str, ...] = ()
    """Further options of the Losswire server."""


FULL: Final = Scale(
    sizes={"S": (32, 10), "M": (1024, 1000), "L": (4096, 4096)},
    repeats={"S": 200, "M": 20, "L": 5},
    batch=64,
    huge_bytes=8_000_000_000,
    projected=(64, 256, 8192),
    connections=16,
)
QUICK: Final = Scale(
    sizes={"S": (32, 10), "M": (256, 1000), "L": (512, 4096)},
    repeats={"S": 20, "M": 2, "L": 1},
    batch=8,
    huge_bytes=64_000_000,
    projected=(16, 64, 512),
    connections=2,
    # So that M goes in one message and L in chunks, as in the full run.
    server_options=("--max-message-mib", "2"),
)

TCP_ONLY: Final = ("--region-quota-mib", "0")
"""The options with which the Losswire server offers no memory of the same host."""

DRIVERS: Final[Mapping[str, tuple[str, ...]]] = {
    "losswire": ("benchmarks.losswire_client", "--kept"),
    "losswire default": ("benchmarks.losswire_client",),
    "torch": ("benchmarks.floors", "torch_here"),
    "torch kept": ("benchmarks.floors", "--kept", "torch_here"),
    "echo": ("benchmarks.floors", "echo_client"),
    "echo kept": ("benchmarks.floors", "--kept", "echo_client"),
    "copy": ("benchmarks.floors", "memcpy"),
}
"""The client programs; the address of the server, or of both echo servers, is added."""

_LOSSWIRE: Final = (
    *("losswire.server", "serve", "--listen", "127.0.0.1:0"),
    *("--device", "cpu", "--log-level", "warning"),
)

SERVERS: Final[Mapping[str, tuple[str, ...]]] = {
    "losswire": (*_LOSSWIRE, *TCP_ONLY),
    "losswire regions": _LOSSWIRE,
    "losswire workers 1": (*_LOSSWIRE, "--workers", "1", "--threads", "1"),
    "losswire workers 2": (*_LOSSWIRE, "--workers", "2", "--threads", "2"),
    "echo sync": ("benchmarks.floors", "echo_server", "sync"),
    "echo aio": ("benchmarks.floors", "echo_server", "aio"),
    "echo sync kept": ("benchmarks.floors", "--kept", "echo_server", "sync"),
    "echo aio kept": ("benchmarks.floors", "--kept", "echo_server", "aio"),
}


def cases(scale: Scale) -> list[Case]:
    """Return all cases."""
    return [*_losswire(scale), *_compute_bound(scale), *_floors(scale)]


_ONE_MESSAGE: Final = ("unary",)
_CHUNKED: Final = ("chunked",)
_TCP: Final = (*_ONE_MESSAGE, *_CHUNKED)
_REGION: Final = ("region",)
_CALLERS: Final = 16
"""How many threads of one process call at once."""
_THROUGHPUT_FACTOR: Final = 5
"""A round of many callers has this multiple of the calls of a single one."""
_CALLS_OF_CONNECTION: Final = 30
"""How many calls of the loss whose computing is the limit a round has, for each connection."""


class _Maker:
    """Makes the cases of one size."""

    def __init__(self, scale: Scale, size: str, *, floor: bool = False) -> None:
        """Store the fields that they have in common."""
        self._size = size
        self._rows, self._columns = scale.sizes[size]
        self._repeats = scale.repeats[size]
        self._floor = floor

    def __call__(self, name: str, work: str, *, driver: str = "losswire", **fields: Any) -> Case:  # noqa: ANN401 (fields of Spec)
        """Make a case."""
        spec = Spec(work=work, rows=self._rows, columns=self._columns, **fields)
        many = spec.callers > 1
        return Case(
            name=f"{self._size} {name}",
            driver=driver,
            spec=spec,
            repeats=self._repeats * (_THROUGHPUT_FACTOR if many else 1),
            floor=self._floor,
            rate=many,
        )


def memory_cases(scale: Scale) -> list[Case]:
    """Return the cases that run on a fresh server each, to measure its memory."""
    medium, large = (_Maker(scale, size) for size in "ML")
    columns = scale.sizes["L"][1]
    rows = -(-scale.huge_bytes // (columns * 4 * BLOCK_ROWS)) * BLOCK_ROWS
    huge = Spec(work="huge", rows=rows, columns=columns)
    return [
        medium("tcp", "evaluate", transports=_TCP),
        large("tcp", "evaluate", transports=_CHUNKED),
        large("in place", "in place", transports=_REGION),
        Case(name=HUGE, driver="losswire", spec=huge, repeats=1),
    ]


def _losswire(scale: Scale) -> Iterator[Case]:
    small, medium, large = (_Maker(scale, size) for size in "SML")
    yield small("unary", "evaluate", transports=_ONE_MESSAGE)
    yield small("stream", "stream")
    yield small("stream asyncio", "async stream")
    yield small("stream pipelined", "pipelined", batch=scale.batch)
    yield small("many", "many", batch=scale.batch)
    yield small("throughput", "evaluate", callers=_CALLERS, transports=_ONE_MESSAGE)
    yield small("beside L", "beside", transports=_ONE_MESSAGE, beside=scale.sizes["L"])
    yield small("beside busy processes", "beside busy", transports=_ONE_MESSAGE)
    local = partial(small, transports=("local",))
    yield local("local", "local")
    yield local("local mse", "local", loss="mse_loss")
    yield local("local throughput", "local", callers=_CALLERS)
    yield medium("tcp", "evaluate", transports=_TCP)
    yield medium("in place", "in place", transports=_REGION)
    yield medium("copies", "copies", transports=_REGION)
    chunked = partial(large, transports=_CHUNKED)
    yield chunked("tcp", "evaluate")
    yield chunked("tcp out", "evaluate", out=True)
    yield chunked("tcp default caller", "evaluate", driver="losswire default")
    yield chunked("tcp mse", "evaluate", loss="mse_loss")
    yield chunked("tcp bf16", "evaluate", dtype="bfloat16")
    yield chunked("tcp loss only", "evaluate", gradients=False)
    yield chunked("tcp factored", "factored", form="factored", out=True)
    yield large("in place", "in place", transports=_REGION)
    yield large("copies", "copies", transports=_REGION)


def _compute_bound(scale: Scale) -> Iterator[Case]:
    """Yield the cases that differ in the server's workers only."""
    rows, features, classes = scale.projected
    spec = Spec(
        work="compute bound",
        rows=rows,
        columns=features,
        classes=classes,
        loss="linear_cross_entropy",
        callers=scale.connections,
    )
    for workers in (1, 2):
        yield Case(
            name=f"compute bound {workers} worker{'s' if workers > 1 else ''}",
            driver="losswire",
            spec=spec,
            repeats=_CALLS_OF_CONNECTION * scale.connections,
            rate=True,
            workers=workers,
        )


def _floors(scale: Scale) -> Iterator[Case]:
    for size in scale.sizes:
        make = _Maker(scale, size, floor=True)
        for kept in ("", " kept"):
            yield make(f"torch{kept}", "torch", driver=f"torch{kept}")
            for server in ("sync", "aio"):
                echo = partial(make, driver=f"echo{kept}", server=server)
                yield echo(f"echo unary {server}{kept}", "unary")
                if size == "S":
                    yield echo(f"echo throughput {server}{kept}", "unary", callers=_CALLERS)
                else:
                    yield echo(f"echo chunked {server}{kept}", "chunked")
                    yield echo(f"echo chunked asyncio {server}{kept}", "chunked asyncio")
        if size != "S":
            yield make("copy", "copy", driver="copy")
