"""Ports: none unless asked for; then the probes tell the truth and Prometheus can read the metrics."""

import math
import re
import socket
from collections.abc import Callable
from pathlib import Path

import aiohttp

from fakes.aks import FakeAks
from fakes.azure import Answer
from fakes.cluster.components import free_port
from fakes.controller import ControllerProcess
from fakes.proxy import Disconnect, FaultProxy
from tests.claims import kaito_claim
from tests.kube import CLAIMS, Kube, eventually, is_true
from tests.scenarios.on_azure import LIST, wait_hit

NAME = "ws09f153898"
LOCAL = "127.0.0.1"
_LISTEN = "0A"

# https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
_SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)')
_SUFFIX = re.compile(r"_(bucket|sum|count)$")

Samples = dict[str, dict[str, float]]


def listening(pid: int) -> list[str]:
    """Return the addresses that a process listens on, as /proc shows them."""
    process = Path("/proc") / str(pid)
    links = [entry.readlink() for entry in (process / "fd").iterdir()]
    mine = {str(link) for link in links if str(link).startswith("socket:")}
    rows = [row.split() for name in ("tcp", "tcp6") for row in (process / "net" / name).read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == _LISTEN and f"socket:[{row[9]}]" in mine]


def parse(text: str) -> Samples:
    """Return the values by name and labels. Fails on what Prometheus would refuse."""
    kinds: dict[str, str] = {}
    samples: Samples = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds
            assert kind in ("counter", "gauge", "histogram", "summary")
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            match = _SAMPLE.fullmatch(line)
            assert match, line
            name, labels, value = match.group(1), match.group(2) or "", float(match.group(3))
            assert name in kinds or kinds[_SUFFIX.sub("", name)] in ("histogram", "summary"), line
            assert labels not in samples.setdefault(name, {}), line
            assert not math.isnan(value)
            samples[name][labels] = value
    return samples


async def test_no_port_is_served_by_default(aks: FakeAks, kube: Kube, controller: ControllerProcess) -> None:
    await kube.create(CLAIMS, kaito_claim(NAME))
    await kube.wait_claim(NAME, is_true("Launched"))
    assert listening(controller.process.pid) == []


async def test_probes_and_metrics(aks: FakeAks, kube: Kube, make_controller: Callable[..., ControllerProcess]) -> None:
    health, metrics = free_port(), free_port()
    outage = Answer(operation=LIST, status=500, times=None)
    fault = aks.azure.add_fault(outage)

    async def get(port: int, path: str) -> tuple[int, str]:
        try:
            async with session.get(f"http://{LOCAL}:{port}{path}") as response:
                return response.status, await response.text()
        except aiohttp.ClientConnectorError:
            return 0, ""

    async with (
        aiohttp.ClientSession() as session,
        make_controller(HEALTH_PROBE_PORT=str(health), METRICS_PORT=str(metrics), BIND_ADDRESS=LOCAL) as controller,
    ):
        await eventually(lambda: get(health, "/healthz"), until=lambda answer: answer[0] == 200)
        await wait_hit(aks, outage)
        status, why = await get(health, "/readyz")
        assert status == 503
        assert "agent pools have not been listed yet" in why
        aks.azure.faults.remove(fault)
        await eventually(lambda: get(health, "/readyz"), until=lambda answer: answer[0] == 200)
        assert len(listening(controller.process.pid)) == 2

        await kube.create(CLAIMS, kaito_claim(NAME))
        await kube.wait_claim(NAME, is_true("Ready"))

        status, text = await get(metrics, "/metrics")
        assert status == 200
        samples = parse(text)
        assert samples["gpu_provisioner_nodeclaims"] == {'ready="True",reason="Ready"': 1.0}
        calls = samples["gpu_provisioner_arm_calls_total"]
        assert calls['operation="agentpools.create",status="201"'] == 1.0
        assert calls['operation="agentpools.list",status="500"'] >= 1.0
        seconds = "gpu_provisioner_arm_call_duration_seconds"
        assert samples[f"{seconds}_count"]['operation="agentpools.create"'] == 1.0
        assert samples[f"{seconds}_bucket"]['operation="agentpools.create",le="+Inf"'] == 1.0
        assert (await get(metrics, "/healthz"))[0] == 404
        ready = next(key for key in samples["operator_nodeclaim_status_condition_count"] if 'type="Ready"' in key)
        assert f'name="{NAME}",type="Ready",status="True",reason="Ready"' in ready
        assert sum(samples["gpu_provisioner_quota_limit_vcpus"].values()) > 0

        assert list(samples["karpenter_nodes_created_total"].values()) == [1.0]
        gpus = [value for key, value in samples["karpenter_nodes_allocatable"].items() if "nvidia.com/gpu" in key]
        assert len(gpus) == 1
        assert gpus[0] > 0
        assert len(samples["karpenter_nodes_current_lifetime_seconds"]) == 1
        worker = 'controller="nodeclaim.lifecycle"'
        assert samples["controller_runtime_max_concurrent_reconciles"][worker] > 1
        assert samples["controller_runtime_reconcile_total"][f'{worker},result="success"'] > 1

        await kube.delete(CLAIMS, NAME)
        await kube.wait_gone(CLAIMS, NAME)
        _, text = await get(metrics, "/metrics")
        samples = parse(text)
        assert sum(samples["karpenter_nodeclaims_terminated_total"].values()) == 1.0
        for what in ("karpenter_nodeclaims_instance_termination", "operator_nodeclaim_termination"):
            assert list(samples[f"{what}_duration_seconds_count"].values()) == [1.0]
        assert "karpenter_nodes_allocatable" not in samples
        assert "operator_nodeclaim_status_condition_count" not in samples


async def test_instance_that_waits_for_its_turn_is_ready_once_it_reaches_the_api_server(
    aks: FakeAks, make_controller: Callable[..., ControllerProcess]
) -> None:
    health = free_port()

    async def get(path: str) -> tuple[int, str]:
        try:
            async with session.get(f"http://{LOCAL}:{health}{path}") as response:
                return response.status, await response.text()
        except aiohttp.ClientConnectorError:
            return 0, ""

    async with (
        FaultProxy(aks.cluster) as proxy,
        aiohttp.ClientSession() as session,
        make_controller(
            KUBECONFIG=str(proxy.kubeconfig),
            LEADER_ELECTION="true",
            HEALTH_PROBE_PORT=str(health),
            BIND_ADDRESS=LOCAL,
        ),
    ):
        away = proxy.add_fault(Disconnect(times=None))
        status, why = await eventually(lambda: get("/readyz"), until=lambda answer: answer[0] != 0)
        assert status == 503
        assert "the API server has not answered yet" in why
        assert (await get("/healthz"))[0] == 200
        proxy.clear(away)
        await eventually(lambda: get("/readyz"), until=lambda answer: answer[0] == 200)
        assert (await get("/healthz"))[0] == 200


async def test_port_that_is_taken_is_told(aks: FakeAks, make_controller: Callable[..., ControllerProcess]) -> None:
    with socket.create_server((LOCAL, 0)) as other:
        port = other.getsockname()[1]
        async with make_controller(METRICS_PORT=str(port), BIND_ADDRESS=LOCAL) as controller:
            assert await controller.process.wait() == 2
            last = controller.log_text().splitlines()[-1]
    assert last.startswith("provisioner: ")
    assert "METRICS_PORT" in last
    assert str(port) in last
