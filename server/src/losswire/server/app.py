"""A running server: creates the evaluator and the services, starts and stops them."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import grpc
import torch
from grpc_health.v1 import health, health_pb2_grpc

from losswire.server import thresholds
from losswire.server.address import Address, StartError, cannot_listen, why_not
from losswire.server.catalogue.registry import Registry, records_in
from losswire.server.compute.devices.cuda import usable_bytes
from losswire.server.compute.native import binding as native
from losswire.server.identity.identity import Identity
from losswire.server.losses import builtin_registry
from losswire.server.memory.regions.memory import HAVE_REGIONS, check_sharing
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.pipeline.selftest import Canary, run_selftest
from losswire.server.pipeline.worker import ComputeWorker
from losswire.server.rpc.calls import Gate
from losswire.server.rpc.direct_summaries import DirectSummaries
from losswire.server.rpc.drain import Drain
from losswire.server.rpc.entrance import Entrance, listen, stop
from losswire.server.rpc.guard import GuardedServer
from losswire.server.rpc.handlers import EvaluateHandlers
from losswire.server.rpc.health import Health
from losswire.server.rpc.health_port import HealthPort
from losswire.server.rpc.kept import add_reflection
from losswire.server.rpc.lease_calls import responder
from losswire.server.rpc.loss_service import LossService
from losswire.server.rpc.recorded import recorded_lease
from losswire.server.rpc.region_socket import RegionSocket
from losswire.server.rpc.run_service import RunService
from losswire.server.rpc.tensor_service import TensorService
from losswire.server.runs.address import StoreSettingError, parse_store
from losswire.server.runs.keeper import RunKeeper
from losswire.server.settings import Settings
from losswire.server.summaries.call import Summarizer
from losswire.server.telemetry.orca import Load
from losswire.server.telemetry.recording import make_recorder
from losswire.v1 import (
    loss_service_pb2,
    loss_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
    tensor_service_pb2,
    tensor_service_pb2_grpc,
)

if TYPE_CHECKING:
    from losswire.server.http.bind import Doors

_log = logging.getLogger(__name__)

_SERVICES = (
    loss_service_pb2.DESCRIPTOR.services_by_name["LossService"],
    run_service_pb2.DESCRIPTOR.services_by_name["RunService"],
    tensor_service_pb2.DESCRIPTOR.services_by_name["TensorService"],
)
_IDENTITY_ONLY = 1
"""The bit set of accepted compressions: none. A compressed message would be
inflated before its size is checked."""


def pick_device(name: str) -> torch.device:
    """Return the device to compute on; StartError when it does not exist."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        message = "--device cuda: torch finds no CUDA device"
        raise StartError(message)
    return torch.device("cuda:0" if name == "cuda" else name)


def fit_to_device(settings: Settings, device: torch.device) -> Settings:
    """Lower the memory budget to the device's memory, of which an evaluation takes as much."""
    if device.type == "cpu":
        return settings
    budget = usable_bytes(device)
    if settings.memory_budget_bytes <= budget:
        return settings
    # Regions share the budget; some of it must remain for evaluations.
    regions = min(settings.region_quota_bytes, budget // 4)
    return replace(settings, memory_budget_bytes=budget, region_quota_bytes=regions)


class App:
    """One server process."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry | None = None,
        on_lost: Callable[[], object] = lambda: None,
    ) -> None:
        """Create a server; `registry` replaces the built-in losses.

        When the device is lost, `on_lost` is called on the event loop; only `stop` is useful then.
        """
        device = pick_device(settings.device)
        self._settings = fit_to_device(settings, device)
        self._registry = registry or load_registry(settings.losses)
        self._recorder = make_recorder(settings)
        self._worker = ComputeWorker(device, settings.threads, self._recorder)
        self._evaluator = Evaluator(self._registry, self._worker, self._settings, self._recorder)
        self._identity = Identity(settings)
        self._gate = Gate(
            self._evaluator.budget,
            self._evaluator.patience,
            self._settings.max_message_bytes,
            self._identity.gatekeeper,
        )
        self._handlers = EvaluateHandlers(
            self._evaluator, self._settings.max_evaluations_per_call, self._recorder
        )
        self._runs = make_keeper(settings.store)
        self._summarizer = Summarizer(self._evaluator)
        self._summaries = DirectSummaries(self._summarizer)
        self._worker_id = secrets.token_hex(8)
        self._on_lost = on_lost
        self._health = Health([each.full_name for each in _SERVICES])
        is_one_of_many = settings.place is not None
        self._health_port = HealthPort(settings.health, self._health, is_shared=is_one_of_many)
        self._drain = Drain()
        self._entrance: Entrance | None = None
        self._server: grpc.aio.Server | None = None
        self._region_socket: RegionSocket | None = None
        self._doors: Doors | None = None
        self._grpc_address = ""
        self.is_ready = False
        """Whether the server accepts calls, and computes them right."""
        self.is_live = True
        """Whether the process should go on; one that should not has to be replaced."""
        self._canary: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listen; returns the address, with the port that was picked."""
        address = Address.parse(self._settings.listen)
        address.check_allowed("--listen", allowed=self._settings.lets_others_call)
        self._doors = self._bind_http()
        try:
            await self._health_port.start()
            port = await self._start_grpc(address)
        except BaseException:
            await self._health_port.stop()
            if self._doors is not None:
                self._doors.close()
            raise
        self._grpc_address = address.with_port(port)
        if self._doors is not None:
            await self._doors.start()
        return self._grpc_address

    async def _start_grpc(self, address: Address) -> int:
        """Serve gRPC; returns the port that was picked."""
        server = self._make_server()
        try:
            port = listen(server, address.text, self._identity.credentials)
        except RuntimeError as error:
            await server.stop(None)
            # Its text advises to debug gRPC.
            raise cannot_listen("--listen", address.text, why_not(address)) from error
        try:
            self._region_socket = self._share_memory(address)
        except StartError:
            await server.stop(None)
            raise
        loop = asyncio.get_running_loop()
        if not native.AVAILABLE and self._worker.device.type == "cpu":
            _log.warning("no native rows in this installation: torch computes instead, and slower")
        self._worker.start(partial(loop.call_soon_threadsafe, self._on_lost))
        try:
            began = time.monotonic()
            await run_selftest(self._evaluator)
            if self._recorder is not None:
                self._recorder.selftest_seconds = time.monotonic() - began
        except Exception as error:
            await self._end_sharing()
            message = f"{self._worker.device} does not compute: {error}"
            raise StartError(message) from error
        await self._runs.start()
        self._identity.start()
        await server.start()
        self._server = server
        canary = Canary(self._evaluator, self._settings.hang_seconds, self._report)
        self._canary = asyncio.create_task(canary.run())
        self._report(ready=True, live=True)
        return port

    def _report(self, *, ready: bool, live: bool) -> None:
        """Store the state of the engine, and say it to those who ask."""
        self.is_ready = ready and not self._drain.has_begun and not self.device_lost
        self.is_live = live and not self.device_lost
        self._health.set(ready=self.is_ready, live=self.is_live)

    @property
    def address(self) -> str:
        """The address of gRPC, with the port that was picked; empty before it listens."""
        return self._grpc_address

    @property
    def http_address(self) -> str:
        """The address of the HTTP door, with the port that was picked; empty: there is none."""
        return "" if self._doors is None else self._doors.http_address

    @property
    def metrics_address(self) -> str:
        """The address where metrics are read; empty: there is none."""
        return "" if self._doors is None else self._doors.metrics_address

    @property
    def health_address(self) -> str:
        """The address where only health is answered; empty: there is none."""
        return self._health_port.address

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator, with its budget, regions and resident tensors."""
        return self._evaluator

    @property
    def handlers(self) -> EvaluateHandlers:
        """The handlers of the evaluating calls, with the cache of prepared evaluations."""
        return self._handlers

    @property
    def summaries(self) -> DirectSummaries:
        """The summaries of callers in this process."""
        return self._summaries

    @property
    def device_lost(self) -> bool:
        """Whether the device failed for good."""
        return self._worker.device_lost

    def _make_server(self) -> grpc.aio.Server:
        settings = self._settings
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
                ("grpc.max_concurrent_streams", 128),
                # Probing would grow the windows of messages that nobody reads yet, to megabytes.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
                ("grpc.server_handshake_timeout_ms", 10_000),
                ("grpc.max_allowed_incoming_connections", thresholds.MAX_CONNECTIONS),
                ("grpc.server.max_pending_requests", thresholds.PENDING_CALLS),
                ("grpc.server.max_pending_requests_hard_limit", thresholds.MAX_PENDING_CALLS),
                ("grpc.so_reuseport", int(settings.place is not None)),
            ]
        )
        evaluator = self._evaluator
        # The generated functions only use the methods that GuardedServer has.
        self._entrance = Entrance(server)
        load = Load(evaluator.budget, self._recorder) if settings.orca and self._recorder else None
        guarded: Any = GuardedServer(self._entrance, _SERVICES, self._gate, self._recorder, load)
        loss_service_pb2_grpc.add_LossServiceServicer_to_server(
            LossService(self._handlers, self._summarizer, settings, self._worker_id, self._drain),
            guarded,
        )
        tensor_service_pb2_grpc.add_TensorServiceServicer_to_server(
            TensorService(evaluator.patience, evaluator.residents, evaluator.regions), guarded
        )
        run_service_pb2_grpc.add_RunServiceServicer_to_server(
            RunService(self._runs, evaluator.budget), guarded
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [each.full_name for each in _SERVICES]
        add_reflection([*names, health.SERVICE_NAME], server, self._gate.keeper)
        return server

    def _bind_http(self) -> "Doors | None":
        """Return the servers of HTTP and of metrics, bound to their addresses, as requested."""
        settings = self._settings
        if self._recorder is None or not (settings.metrics or settings.http):
            return None
        # Imported here: a server without HTTP starts sooner, in less memory.
        from losswire.server.http.bind import Doors  # noqa: PLC0415
        from losswire.server.http.services import Services  # noqa: PLC0415
        from losswire.server.http.siblings import Siblings  # noqa: PLC0415

        services = Services(
            settings=settings,
            evaluator=self._evaluator,
            summarizer=self._summarizer,
            runs=self._runs,
            worker_id=self._worker_id,
            grpc_address=lambda: self._grpc_address,
            is_ready=lambda: self.is_ready and not self.device_lost,
            is_live=lambda: self.is_live and not self.device_lost,
            is_draining=lambda: self._drain.has_begun,
            recorder=self._recorder,
            gatekeeper=self._gate.keeper,
            tls=self._identity.context,
            siblings=None if settings.place is None else Siblings(settings.place),
        )
        return Doors(services)

    def _share_memory(self, address: Address) -> RegionSocket | None:
        """Lease regions, if that was requested or only this machine can call."""
        path, regions = self._settings.region_socket, self._evaluator.regions
        if not self._settings.region_quota_bytes or not (path or address.local):
            return None
        if not HAVE_REGIONS:
            if path:
                message = f"--region-socket {path}: this system cannot share memory"
                raise StartError(message)
            return None
        try:
            check_sharing()
            longest = min(thresholds.MAX_LEASE_REQUEST_BYTES, self._settings.max_message_bytes)
            respond = responder(self._handlers.one)
            if self._recorder is not None:
                respond = recorded_lease(respond, self._recorder)
            return RegionSocket(regions, path, respond, longest, self._gate)
        except OSError as error:
            if path:
                message = f"--region-socket {path}: {error}"
                raise StartError(message) from error
            _log.warning("no memory is shared with callers on this machine: %s", error)
            return None

    async def _end_sharing(self) -> None:
        if self._region_socket is not None:
            await self._region_socket.close(self._settings.drain_seconds)

    async def stop(self) -> None:
        """Report NOT_SERVING, refuse new calls after a moment, let those in flight finish, end."""
        if self._canary is not None:
            self._canary.cancel()
        self._identity.stop()
        self.is_ready = False
        self._health.set(ready=False, live=self.is_live)
        if self._server is not None and self._entrance is not None:
            if not self.device_lost:
                await asyncio.sleep(self._settings.notice_seconds)
            self._drain.begin()
            self._summarizer.drain()
            self._health.end()
            seconds = self._settings.drain_seconds
            doors = [] if self._doors is None else [self._doors]
            await asyncio.gather(
                self._stop_grpc(self._server, self._entrance),
                self._summaries.stop(seconds),
                self._end_sharing(),
                *(each.drain() for each in doors),
            )
            # Until now, who asked was told that the server is not ready.
            for each in doors:
                await each.stop()
            await self._health_port.stop()
            self._worker.stop()
            await self._runs.stop()
        _log.info("stopped")

    async def _stop_grpc(self, server: grpc.aio.Server, entrance: Entrance) -> None:
        await entrance.close()
        await stop(server, self._settings.drain_seconds, self._is_idle)

    def _is_idle(self) -> bool:
        """Return whether no call holds memory."""
        return self._evaluator.budget.reserved_bytes == self._evaluator.regions.held_bytes


def make_keeper(store: str) -> RunKeeper:
    """Return the keeper of runs; StartError for a setting that can never work."""
    try:
        return RunKeeper(parse_store(store))
    except StoreSettingError as error:
        # Without the setting, which may hold a password.
        message = f"--store: {error}"
        raise StartError(message) from None


def load_registry(modules: tuple[str, ...]) -> Registry:
    """Return a registry of the built-in losses and those of further modules."""
    registry = builtin_registry()
    for name in modules:
        try:
            for record in records_in(import_module(name)):
                registry.add(record)
        except Exception as error:  # a module may fail in any way
            message = f"--losses {name}: {' '.join(str(error).split())}"
            raise StartError(message) from error
    return registry
