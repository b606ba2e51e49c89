"""deploy/envoy/orca.yaml: a real Envoy sends fewer calls to a server that reports more load."""

import struct
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import yaml

from losswire.v1 import evaluation_pb2, loss_service_pb2_grpc
from tests.support.envoy import (
    FOLDER,
    Replica,
    clusters,
    configuration,
    require_envoy,
    running_envoy,
)
from tests.support.requests import GOLDEN, by_call
from tests.support.scripted import Script, Scripted, echo, serving
from tests.support.vitals import wait_until


def reporting(utilization: float) -> Script:
    """Return a script that reports a load: an OrcaLoadReport with two fields."""
    report = b"\x49" + struct.pack("<d", utilization)  # application_utilization
    report += b"\x31" + struct.pack("<d", 100.0)  # rps_fractional

    def script(
        item: evaluation_pb2.Evaluation, context: grpc.ServicerContext
    ) -> evaluation_pb2.EvaluationResult:
        context.set_trailing_metadata((("endpoint-load-metrics-bin", report),))
        return echo(item)

    return script


def balanced_by_reports(addresses: list[str]) -> dict[str, Any]:
    """Return the configuration with orca.yaml in the place that it names."""
    configured = configuration([Replica(each, each) for each in addresses])
    for cluster in clusters(configured):
        del cluster["health_checks"]  # scripts have none
    [cluster] = [each for each in clusters(configured) if each["name"] == "losswire_grpc"]
    del cluster["lb_policy"]
    cluster.update(yaml.safe_load((FOLDER / "orca.yaml").read_text("utf-8")))
    return configured


def test_the_replica_with_less_load_gets_more_calls(tmp_path: Path) -> None:
    """Of two servers that report 90% and 10%, the second one gets most calls."""
    require_envoy()
    with ExitStack() as stack:
        busy, idle = (
            stack.enter_context(serving(Scripted(script=reporting(each)))) for each in (0.9, 0.1)
        )
        configured = balanced_by_reports([busy.address, idle.address])
        envoy = stack.enter_context(running_envoy(tmp_path / "envoy", configured))
        channel = stack.enter_context(grpc.insecure_channel(envoy.address))
        stub = loss_service_pb2_grpc.LossServiceStub(channel)

        def is_balanced() -> bool:
            before = len(busy.evaluations), len(idle.evaluations)
            for _ in range(100):
                assert by_call(stub, GOLDEN).HasField("result")
            shares = len(busy.evaluations) - before[0], len(idle.evaluations) - before[1]
            return shares[1] >= 4 * shares[0] > 0

        # Reports count from some seconds after the first one on.
        wait_until(is_balanced)
