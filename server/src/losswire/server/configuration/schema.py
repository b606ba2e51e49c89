"""The settings that an operator may choose: each is a flag, a variable and a key of a file."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from losswire.server.configuration import values
from losswire.server.runs.address import default_store
from losswire.server.settings import MIB, Settings, available_cpus, available_memory

PREFIX: Final = "LOSSWIRE_"
"""What the names of variables begin with."""


@dataclass(frozen=True, slots=True)
class Flag:
    """How a setting looks on the command line."""

    metavar: str = ""
    """What stands for its value; empty: it has none, and switches something on."""
    choices: tuple[str, ...] = ()
    """The only values."""
    shows_default: bool = True
    """Whether the help adds the default, which is not in its text."""
    repeats: bool = False
    """Whether it may be given more than once."""


_DEVICES: Final = ("auto", "cpu", "cuda")
_LEVELS: Final = ("debug", "info", "warning", "error")
_HIDDEN: Final = False

_Text = Annotated[str, BeforeValidator(values.text)]
_Whole = Annotated[int, BeforeValidator(values.whole)]
_Positive = Annotated[int, BeforeValidator(values.positive)]
_Seconds = Annotated[float, BeforeValidator(values.seconds)]
_Switch = Annotated[bool, BeforeValidator(values.switch)]
_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.names)]


class Configuration(BaseSettings):
    """The settings of `losswire-server serve`, in the order of its help."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, validate_default=False
    )

    listen: Annotated[_Text, Flag("ADDRESS")] = Field(
        "127.0.0.1:50051",
        description="HOST:PORT, where port 0 picks a free one, or unix:PATH",
    )
    http: Annotated[_Text, Flag("ADDRESS", shows_default=_HIDDEN)] = Field(
        "",
        description="also serve HTTP with JSON and the console: HOST:PORT, where port 0 picks a "
        "free one (default: nowhere)",
    )
    http_cors: Annotated[_Names, Flag("ORIGIN", shows_default=_HIDDEN, repeats=True)] = Field(
        (),
        description="a web page's origin, such as https://example.org, that may call over HTTP; "
        "may be repeated",
    )
    metrics: Annotated[_Text, Flag("ADDRESS", shows_default=_HIDDEN)] = Field(
        "",
        description="HOST:PORT where Prometheus reads metrics at /metrics (default: nowhere)",
    )
    health: Annotated[_Text, Flag("ADDRESS", shows_default=_HIDDEN)] = Field(
        "",
        description="HOST:PORT where gRPC's health alone is answered, without TLS and tokens "
        "(default: nowhere; it is answered at --listen, too)",
    )
    device: Annotated[
        str, BeforeValidator(values.one_of(*_DEVICES)), Flag("NAME", choices=_DEVICES)
    ] = Field("auto", description="where to compute")
    threads: Annotated[_Positive, Flag("N")] = Field(
        default_factory=available_cpus,
        description="how many CPU threads torch uses; the default is what the cgroup allows",
    )
    workers: Annotated[_Whole, Flag("N")] = Field(
        0,
        description="serve with N processes, each with its share of CPUs and memory, under a "
        "supervisor that replaces one that ends or hangs; 0: this process serves alone",
    )
    hang_seconds: Annotated[float, BeforeValidator(values.positive_seconds), Flag("S")] = Field(
        60.0,
        description="how long one evaluation may occupy the engine before it counts as hung",
    )
    losses: Annotated[_Names, Flag("MODULE", shows_default=_HIDDEN, repeats=True)] = Field(
        (), description="an installed module with further losses; may be repeated"
    )
    tls_cert: Annotated[_Text, Flag("FILE", shows_default=_HIDDEN)] = Field(
        "",
        description="a file in PEM with the server's certificate and those between it and its "
        "authority, which `losswire-server tls` can make (default: no TLS)",
    )
    tls_key: Annotated[_Text, Flag("FILE", shows_default=_HIDDEN)] = Field(
        "", description="a file in PEM with the key of that certificate"
    )
    tls_client_ca: Annotated[_Text, Flag("FILE", shows_default=_HIDDEN)] = Field(
        "",
        description="a file in PEM with the authorities whose certificates callers have to show "
        "(default: none is asked for)",
    )
    tokens: Annotated[_Text, Flag("FILE", shows_default=_HIDDEN)] = Field(
        "",
        description="a file with the hashes of the tokens that callers have to show, as "
        "`losswire-server token new` writes it (default: none is asked for)",
    )
    allow_insecure: Annotated[_Switch, Flag(shows_default=_HIDDEN)] = Field(
        default=False,
        description="listen where other machines can call, without TLS or token",
    )
    max_message_mib: Annotated[int, BeforeValidator(values.message_size), Flag("MIB")] = Field(
        8, description="the largest request in one piece; less than 2048"
    )
    memory_budget_mib: Annotated[_Positive, Flag("MIB")] = Field(
        default_factory=lambda: max(available_memory() // 2 // MIB, 1),
        description="the memory that all evaluations together may take; the default is half of it "
        "all",
    )
    resident_quota_mib: Annotated[_Whole | None, Flag("MIB", shows_default=_HIDDEN)] = Field(
        None,
        description="the memory that resident tensors may take, beside the budget; 0 keeps none "
        "(default: a quarter of the budget)",
    )
    region_quota_mib: Annotated[_Whole | None, Flag("MIB", shows_default=_HIDDEN)] = Field(
        None,
        description="how much of the budget may be memory shared with callers on this machine; 0 "
        "shares none (default: a quarter of the budget)",
    )
    region_socket: Annotated[_Text, Flag("PATH", shows_default=_HIDDEN)] = Field(
        "",
        description="the unix socket that hands out shared memory; without it, one in a private "
        "folder when only this machine can call, and none otherwise",
    )
    store: Annotated[_Text, Flag("STORE", shows_default=_HIDDEN)] = Field(
        default_factory=default_store,
        description="where runs are kept: a folder, postgresql+psycopg://USER@HOST/DATABASE, "
        "sqlite:////FOLDER/FILE, or `none` (default: losswire in $XDG_STATE_HOME, or else in "
        "~/.local/state)",
    )
    drain_seconds: Annotated[_Seconds, Flag("S")] = Field(
        10.0, description="how long calls may go on after SIGTERM"
    )
    notice_seconds: Annotated[_Seconds, Flag("S")] = Field(
        0.2,
        description="how long calls are still accepted after SIGTERM, for load balancers that ask "
        "for health in between",
    )
    call_log: Annotated[str, BeforeValidator(values.call_log), Flag("WHICH")] = Field(
        "none",
        description="which calls have a line in the log: none, errors, all, or a fraction such as "
        "0.01, which adds that part of the others to the errors",
    )
    orca: Annotated[_Switch, Flag(shows_default=_HIDDEN)] = Field(
        default=False,
        description="end each call over TCP that has one answer with a report of the load (ORCA), "
        "for load balancers that weigh servers by it",
    )
    log_level: Annotated[
        str, BeforeValidator(values.one_of(*_LEVELS)), Flag("LEVEL", choices=_LEVELS)
    ] = Field("info", description="what the log tells")

    def settings(self) -> Settings:
        """Return the settings of a server."""
        quarter = self.memory_budget_mib // 4
        residents, regions = (
            quarter if each is None else each
            for each in (self.resident_quota_mib, self.region_quota_mib)
        )
        return Settings(
            listen=self.listen,
            http=self.http,
            http_cors=self.http_cors,
            metrics=self.metrics,
            health=self.health,
            device=self.device,
            threads=self.threads,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            tls_client_ca=self.tls_client_ca,
            tokens=self.tokens,
            allow_insecure=self.allow_insecure,
            max_message_bytes=self.max_message_mib * MIB,
            memory_budget_bytes=self.memory_budget_mib * MIB,
            resident_quota_bytes=residents * MIB,
            region_quota_bytes=regions * MIB,
            region_socket=self.region_socket,
            drain_seconds=self.drain_seconds,
            notice_seconds=self.notice_seconds,
            hang_seconds=self.hang_seconds,
            losses=self.losses,
            store=self.store,
            call_log=self.call_log,
            orca=self.orca,
        )


def flag_of(name: str) -> Flag:
    """Return how a setting looks on the command line."""
    [flag] = [each for each in Configuration.model_fields[name].metadata if isinstance(each, Flag)]
    return flag


def default_of(name: str) -> Any:  # noqa: ANN401 (of any setting)
    """Return the default of a setting."""
    return Configuration.model_fields[name].get_default(call_default_factory=True)
