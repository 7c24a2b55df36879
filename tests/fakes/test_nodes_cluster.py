"""The fake nodes under a control plane: its controllers make the pods, its scheduler binds them."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from fakes.cluster.interface import ControlPlane
from fakes.containers import NETWORK, Image, ProcessRunner, Timing
from fakes.nodes import FakeNodes, FaultKind, NodeSettings, Runner, What
from fakes.nodes.api import ApiError, KubeApi, Object
from fakes.nodes.conditions import find, is_true
from tests.fakes.nodes_support import DEADLINE, Machines, machine, until

SCALE = 200.0
NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/default/pods"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
STATEFUL_SETS = "/apis/apps/v1/namespaces/default/statefulsets"
DAEMON_SETS = "/apis/apps/v1/namespaces/kube-system/daemonsets"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
PLUGIN = Path(__file__).parents[2] / "fakes/nodes/manifests/nvidia-device-plugin.yaml"


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane without the device plugin, which other tests may have left. What these leave is taken away."""
    admin = control_plane.client()
    admin.request("DELETE", DAEMON_SETS)
    yield control_plane
    for path in (JOBS, STATEFUL_SETS, DAEMON_SETS):
        admin.request("DELETE", f"{path}?propagationPolicy=Background")
    # No kubelet is left that would end the pods.
    for path in (f"{PODS}?gracePeriodSeconds=0", NODES):
        admin.request("DELETE", path)


class World:
    """A source of machines, a client, and the fake nodes between them."""

    def __init__(self, cluster: ControlPlane, api: KubeApi) -> None:
        self.cluster = cluster
        self.api = api
        self.machines = Machines()

    def nodes(self, *, runner: Runner | None = None, **settings: Any) -> AbstractAsyncContextManager[FakeNodes]:
        return FakeNodes(
            self.cluster.kubeconfig, self.machines, settings=NodeSettings(**settings), scale=SCALE, runner=runner
        )

    async def get(self, path: str) -> Object | None:
        try:
            return await self.api.call("GET", path)
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    async def node(self, name: str) -> Object:
        return await self.api.call("GET", f"{NODES}/{name}")

    async def until_ready(self, name: str, *, ready: bool = True) -> Object:
        async def check() -> Object | None:
            node = await self.get(f"{NODES}/{name}")
            return node if node is not None and is_true(node, "Ready") is ready else None

        return await until(check)

    async def until_gone(self, path: str) -> None:
        async def check() -> bool:
            return await self.get(path) is None

        await until(check)

    async def until_condition(self, path: str, kind: str) -> Object:
        async def check() -> Object | None:
            item = await self.get(path)
            return item if item is not None and is_true(item, kind) else None

        return await until(check)

    async def pods_on(self, node: str) -> list[Object]:
        answer = await self.api.call("GET", "/api/v1/pods", params={"fieldSelector": f"spec.nodeName={node}"})
        pods: list[Object] = answer["items"]
        return pods


@pytest_asyncio.fixture
async def world(cluster: ControlPlane) -> AsyncIterator[World]:
    async with KubeApi(cluster.kubeconfig) as api:
        yield World(cluster, api)


@pytest_asyncio.fixture
async def plugin(world: World) -> AsyncIterator[None]:
    await world.api.call("POST", DAEMON_SETS, body=yaml.safe_load(PLUGIN.read_text()))
    yield
    path = f"{DAEMON_SETS}/nvidia-device-plugin"
    await world.api.call("DELETE", path)
    await world.until_gone(path)


def template(pool: str, *, notes: dict[str, str] | None = None, **spec: Any) -> Object:
    return {
        "metadata": {"labels": {"app": pool}, "annotations": notes or {}},
        "spec": {
            "nodeSelector": {"agentpool": pool},
            "tolerations": [{"key": "sku", "operator": "Exists"}],
            "containers": [{"name": "main", "image": "busybox", "readinessProbe": {"exec": {"command": ["true"]}}}],
            "terminationGracePeriodSeconds": 30,
            **spec,
        },
    }


def pod(pool: str, *, notes: dict[str, str] | None = None, **spec: Any) -> Object:
    made = template(pool, notes=notes, **spec)
    return {**made, "metadata": {**made["metadata"], "name": pool}}


def job(pool: str, *, notes: dict[str, str] | None = None) -> Object:
    return {
        "metadata": {"name": pool},
        "spec": {"backoffLimit": 0, "template": template(pool, notes=notes, restartPolicy="Never")},
    }


def stateful_set(pool: str) -> Object:
    selector = {"matchLabels": {"app": pool}}
    return {
        "metadata": {"name": pool},
        "spec": {"serviceName": pool, "replicas": 1, "selector": selector, "template": template(pool)},
    }


def taint_keys(node: Object) -> set[str]:
    return {taint["key"] for taint in node["spec"].get("taints") or ()}


def gpus(node: Object) -> tuple[str | None, str | None]:
    status = node["status"]
    return status["capacity"].get("nvidia.com/gpu"), status["allocatable"].get("nvidia.com/gpu")


class TestJoining:
    async def test_a_machine_becomes_a_ready_node_as_on_aks(self, world: World) -> None:
        made = machine("join", node_labels={"kaito.sh/workspace": "phi"}, zone="2")
        seen: list[Object] = []

        async def follow(version: str) -> None:
            async for _, node in world.api.watch(NODES, version=version, seconds=int(DEADLINE)):
                if node["metadata"]["name"] == made.name:
                    seen.append(node)
                    if is_true(node, "Ready") and not taint_keys(node) - {"sku"}:
                        return

        version = (await world.api.call("GET", NODES))["metadata"]["resourceVersion"]
        async with world.nodes(), asyncio.timeout(DEADLINE):
            await world.machines.set(made)
            await follow(version)
            lease = await world.api.call("GET", f"{LEASES}/{made.name}")

        first, last = seen[0], seen[-1]
        ready = find(first, "Ready")
        assert ready is not None
        assert (ready["status"], ready["reason"]) == ("False", "KubeletNotReady")
        assert "providerID" not in first["spec"]
        assert "node.kubernetes.io/instance-type" not in first["metadata"]["labels"]
        uninitialized, not_ready = "node.cloudprovider.kubernetes.io/uninitialized", "node.kubernetes.io/not-ready"
        assert taint_keys(first) >= {"sku", uninitialized, not_ready}

        assert last["spec"]["providerID"] == made.provider_id
        assert last["spec"]["taints"] == [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
        labels = last["metadata"]["labels"]
        assert labels["kaito.sh/workspace"] == "phi"
        assert labels["agentpool"] == "join"
        assert labels["node.kubernetes.io/instance-type"] == made.vm_size
        assert labels["topology.kubernetes.io/zone"] == "swedencentral-2"
        assert labels["kubernetes.azure.com/accelerator"] == "nvidia"
        assert {entry["type"] for entry in last["status"]["addresses"]} == {"InternalIP", "Hostname"}
        assert last["status"]["nodeInfo"]["kubeletVersion"] == "v1.33.6"
        assert gpus(last) == (None, None)
        assert lease["metadata"]["ownerReferences"][0]["uid"] == last["metadata"]["uid"]

    async def test_a_change_of_the_pool_reaches_its_nodes(self, world: World) -> None:
        made = machine("pool", node_labels={"team": "a", "old": "1"})
        async with world.nodes():
            await world.machines.set(made)
            await world.until_ready(made.name)
            await world.machines.set(
                dataclasses.replace(made, node_labels={"team": "b"}, node_taints=("team=b:NoSchedule",))
            )

            async def changed() -> Object | None:
                node = await world.node(made.name)
                return node if node["metadata"]["labels"]["team"] == "b" else None

            node = await until(changed)
            assert "old" not in node["metadata"]["labels"]
            assert taint_keys(node) & {"sku", "team"} == {"team"}

    async def test_heartbeats_go_on_in_real_time(self, world: World) -> None:
        made = machine("beat")
        async with world.nodes(lease_interval_real=0.1):
            await world.machines.set(made)
            await world.until_ready(made.name)

            async def renewals() -> str:
                lease = await world.api.call("GET", f"{LEASES}/{made.name}")
                return str(lease["spec"]["renewTime"])

            first = await renewals()

            async def renewed() -> bool:
                return await renewals() > first

            await until(renewed)


class TestGpus:
    async def test_they_register_with_the_device_plugin_and_are_withdrawn_with_it(self, world: World) -> None:
        made = machine("gpus", gpu_count=4)
        async with world.nodes() as nodes, asyncio.timeout(DEADLINE):
            await world.machines.set(made)
            assert gpus(await world.until_ready(made.name)) == (None, None)
            await world.api.call("POST", DAEMON_SETS, body=yaml.safe_load(PLUGIN.read_text()))
            await nodes.journal.wait(What.GPUS, node=made.name)
            assert gpus(await world.node(made.name)) == ("4", "4")
            (row,) = [row for row in nodes.describe()["nodes"] if row["name"] == made.name]
            assert (row["state"], row["gpus"], row["gpus_expected"], row["pods"]) == ("ready", 4, 4, 1)
            await world.api.call("DELETE", f"{DAEMON_SETS}/nvidia-device-plugin")

            async def withdrawn() -> bool:
                return gpus(await world.node(made.name)) == ("4", "0")

            await until(withdrawn)

    @pytest.mark.usefixtures("plugin")
    async def test_a_pod_that_asks_for_a_gpu_runs_once_it_is_there(self, world: World) -> None:
        made = machine("ask")
        limits = {"limits": {"nvidia.com/gpu": "1"}}
        async with world.nodes():
            containers = [{"name": "main", "image": "vllm", "resources": limits}]
            await world.api.call("POST", PODS, body=pod("ask", containers=containers))
            await world.machines.set(made)
            running = await world.until_condition(f"{PODS}/ask", "Ready")
            assert running["spec"]["nodeName"] == made.name
            assert gpus(await world.node(made.name)) == ("1", "1")

    @pytest.mark.usefixtures("plugin")
    async def test_faults_of_gpus(self, world: World) -> None:
        healthy = machine("gpuwell", gpu_count=8)
        never, fewer, driver = (machine(f"gpu{pool}", gpu_count=8) for pool in ("never", "fewer", "driver"))
        async with world.nodes() as nodes, asyncio.timeout(DEADLINE):
            nodes.add_fault(FaultKind.GPUS_NEVER_REGISTER, pool="gpunever")
            nodes.add_fault(FaultKind.FEWER_GPUS, pool="gpufewer", gpus=7)
            missing = nodes.add_fault(FaultKind.DRIVER_MISSING, pool="gpudriver")
            await world.machines.set(healthy, never, fewer, driver)
            for made in (healthy, fewer):
                await nodes.journal.wait(What.GPUS, node=made.name)

            async def plugin_on(name: str) -> Object:
                async def started() -> Object | None:
                    pods = [pod for pod in await world.pods_on(name) if pod["status"]["phase"] == "Running"]
                    return pods[0] if pods else None

                return await until(started)

            assert is_true(await plugin_on(never.name), "Ready")
            crashing = await plugin_on(driver.name)
            waiting = crashing["status"]["containerStatuses"][0]["state"]["waiting"]
            assert waiting["reason"] == "CrashLoopBackOff"
            assert "NVML" in waiting["message"]
            found = [gpus(await world.node(made.name)) for made in (healthy, fewer, never, driver)]
            assert found == [("8", "8"), ("7", "7"), (None, None), (None, None)]

            nodes.clear(missing)
            await nodes.journal.wait(What.GPUS, node=driver.name)
            assert gpus(await world.node(driver.name)) == ("8", "8")
            assert gpus(await world.node(never.name)) == (None, None)


class TestPods:
    async def test_a_job_finishes_and_a_job_fails_as_told(self, world: World) -> None:
        async with world.nodes():
            await world.machines.set(machine("jobgood"), machine("jobbad"))
            await world.api.call("POST", JOBS, body=job("jobgood"))
            await world.api.call("POST", JOBS, body=job("jobbad", notes={"fake.nodes/exit-code": "137"}))
            good = await world.until_condition(f"{JOBS}/jobgood", "Complete")
            bad = await world.until_condition(f"{JOBS}/jobbad", "Failed")
            assert (good["status"]["succeeded"], bad["status"]["failed"]) == (1, 1)
            (failed,) = await world.pods_on(machine("jobbad").name)
            (container,) = failed["status"]["containerStatuses"]
            assert container["state"]["terminated"]["exitCode"] == 137

    async def test_a_stateful_sets_pod_is_ready_and_comes_back_after_deletion(self, world: World) -> None:
        path = f"{PODS}/serve-0"
        async with world.nodes():
            await world.machines.set(machine("serve"))
            await world.api.call("POST", STATEFUL_SETS, body=stateful_set("serve"))
            first = await world.until_condition(path, "Ready")
            assert first["status"]["podIP"]
            await world.api.call("DELETE", path)

            async def replaced() -> Object | None:
                again = await world.get(path)
                new = again is not None and again["metadata"]["uid"] != first["metadata"]["uid"]
                return again if again is not None and new and is_true(again, "Ready") else None

            second = await until(replaced)
            assert second["status"]["podIP"] != first["status"]["podIP"]
            await world.api.call("DELETE", f"{STATEFUL_SETS}/serve")
            await world.until_gone(path)

    async def test_a_pod_waits_for_ever_when_told(self, world: World) -> None:
        async with world.nodes():
            await world.machines.set(machine("pull"))
            await world.api.call("POST", PODS, body=pod("pull", notes={"fake.nodes/waiting": "ImagePullBackOff"}))

            async def waits() -> Object | None:
                status = (await world.api.call("GET", f"{PODS}/pull"))["status"]
                states = [entry["state"]["waiting"] for entry in status.get("containerStatuses") or ()]
                return status if states == [{"reason": "ImagePullBackOff"}] else None

            status = await until(waits)
            assert status["phase"] == "Pending"
            await world.api.call("DELETE", f"{PODS}/pull")
            await world.until_gone(f"{PODS}/pull")


class TestPodsThatRun:
    """Pods of an image that this machine has a program for: their containers are processes."""

    IMAGE = "registry.invalid/shell:1"
    SCRIPT = "trap 'echo told; exit 7' TERM; echo $VALUE; while :; do sleep 0.05; done"

    @pytest.fixture
    def runner(self, tmp_path: Path) -> ProcessRunner:
        images = {self.IMAGE: Image(entrypoint=("sh", "-c"))}
        timing = Timing(back_off=0.1, longest=0.1, retry=0.05)
        return ProcessRunner(images, folder=tmp_path / "pods", logs=tmp_path / "logs", timing=timing)

    def container(self, script: str, **fields: Any) -> Object:
        return {"name": "main", "image": self.IMAGE, "args": [script], **fields}

    async def test_they_are_reported_as_they_stand_until_they_have_ended(
        self, world: World, runner: ProcessRunner
    ) -> None:
        values = [{"name": "VALUE", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
        probes = {"readinessProbe": {"exec": {"command": ["true"]}}}
        containers = [self.container(self.SCRIPT, env=values, **probes)]
        async with world.nodes(runner=runner, pod_network=NETWORK):
            await world.machines.set(machine("runs"))
            await world.api.call("POST", PODS, body=pod("runs", containers=containers))
            ready = await world.until_condition(f"{PODS}/runs", "Ready")
            await world.api.call("DELETE", f"{PODS}/runs")
            await world.until_gone(f"{PODS}/runs")

        (status,) = ready["status"]["containerStatuses"]
        assert set(status["state"]) == {"running"}
        assert (status["ready"], status["started"], status["restartCount"]) == (True, True, 0)
        assert status["containerID"].startswith("process://")
        assert runner.log_of("default", "runs", "main").read_text() == f"{ready['status']['podIP']}\ntold\n"

    async def test_they_are_started_again_and_say_why_they_ended(self, world: World, runner: ProcessRunner) -> None:
        dying = self.container("echo no model; exit 3", terminationMessagePolicy="FallbackToLogsOnError")
        async with world.nodes(runner=runner, pod_network=NETWORK):
            await world.machines.set(machine("dies"))
            await world.api.call("POST", PODS, body=pod("dies", containers=[dying]))

            async def restarted() -> Object | None:
                pod = await world.api.call("GET", f"{PODS}/dies")
                found: list[Object] = pod["status"].get("containerStatuses") or []
                return found[0] if found and found[0]["restartCount"] >= 2 else None

            status = await until(restarted)
            assert status["lastState"]["terminated"]["exitCode"] == 3
            assert status["lastState"]["terminated"]["message"].endswith("no model\n")

    async def test_a_job_of_them_is_complete_when_they_are(self, world: World, runner: ProcessRunner) -> None:
        made = job("runsjob")
        made["spec"]["template"]["spec"]["containers"] = [self.container("exit 0")]
        async with world.nodes(runner=runner, pod_network=NETWORK):
            await world.machines.set(machine("runsjob"))
            await world.api.call("POST", JOBS, body=made)
            assert (await world.until_condition(f"{JOBS}/runsjob", "Complete"))["status"]["succeeded"] == 1

    async def test_they_end_with_their_machine(self, world: World, runner: ProcessRunner) -> None:
        deaf = self.container("trap '' TERM; echo up; while :; do echo >> \"$BEAT\"; sleep 0.05; done")
        beat = runner.log_of("default", "ends", "main").with_name("beat")
        deaf["env"] = [{"name": "BEAT", "value": str(beat)}]
        async with world.nodes(runner=runner, pod_network=NETWORK) as nodes, asyncio.timeout(DEADLINE):
            await world.machines.set(machine("ends"))
            await world.api.call("POST", PODS, body=pod("ends", containers=[deaf]))
            await world.until_condition(f"{PODS}/ends", "Ready")
            await world.machines.set()
            await nodes.journal.wait(What.NODE_REMOVED, node=machine("ends").name)
            await world.until_gone(f"{PODS}/ends")
            last = beat.stat().st_mtime_ns

        assert beat.stat().st_mtime_ns == last

    async def test_pods_of_other_images_are_simulated_beside_them(self, world: World, runner: ProcessRunner) -> None:
        async with world.nodes(runner=runner, pod_network=NETWORK):
            await world.machines.set(machine("beside"))
            await world.api.call("POST", PODS, body=pod("beside"))
            ready = await world.until_condition(f"{PODS}/beside", "Ready")

        assert not ready["status"]["containerStatuses"][0]["containerID"].startswith("process://")


class TestLeaving:
    async def test_node_pods_and_lease_go_with_the_vm(self, world: World) -> None:
        made = machine("leave")
        async with world.nodes() as nodes, asyncio.timeout(DEADLINE):
            await world.machines.set(made)
            await world.api.call("POST", PODS, body=pod("leave"))
            await world.until_condition(f"{PODS}/leave", "Ready")
            await world.machines.set()
            await nodes.journal.wait(What.NODE_REMOVED, node=made.name)
            for path in (f"{NODES}/{made.name}", f"{PODS}/leave", f"{LEASES}/{made.name}"):
                await world.until_gone(path)
            kinds = [entry.what for entry in nodes.happenings if entry.node == made.name]
            # Its removal waits for nobody's heartbeat, so NotReady comes first only by the clock.
            assert kinds.index(What.VM_GONE) < kinds.index(What.SILENT) < kinds.index(What.NODE_REMOVED)

    async def test_the_node_stays_not_ready_where_nobody_removes_it(self, world: World) -> None:
        made = machine("stay")
        async with world.nodes(node_removal_delay=None):
            await world.machines.set(made)
            await world.until_ready(made.name)
            await world.machines.set()

            async def unreachable() -> Object | None:
                node = await world.node(made.name)
                return node if "node.kubernetes.io/unreachable" in taint_keys(node) else None

            ready = find(await until(unreachable), "Ready")
            assert ready is not None
            assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")

    @pytest.mark.parametrize("pool", ["again", "swapped"])
    async def test_a_vm_that_comes_back_under_its_name_has_a_new_node(self, world: World, pool: str) -> None:
        made = machine(pool)
        async with world.nodes() as nodes, asyncio.timeout(DEADLINE):
            await world.machines.set(made)
            old = await world.until_ready(made.name)
            if pool == "again":
                await world.machines.set()
                await nodes.journal.wait(What.VM_GONE, node=made.name)
            await world.machines.set(dataclasses.replace(made, created_at=1.0))

            async def replaced() -> Object | None:
                node = await world.get(f"{NODES}/{made.name}")
                fresh = node is not None and node["metadata"]["uid"] != old["metadata"]["uid"]
                return node if node is not None and fresh and is_true(node, "Ready") else None

            assert await until(replaced)

    async def test_a_node_deleted_under_its_kubelet_stays_deleted(self, world: World) -> None:
        made, other = machine("deleted"), machine("witness")
        async with world.nodes() as nodes, asyncio.timeout(DEADLINE):
            await world.machines.set(made)
            await world.until_ready(made.name)
            await world.api.call("DELETE", f"{NODES}/{made.name}")
            await nodes.journal.wait(What.NODE_DELETED, node=made.name)
            # A whole join takes longer than the look at a deleted Node.
            await world.machines.set(made, other)
            await world.until_ready(other.name)
            assert await world.get(f"{NODES}/{made.name}") is None

            nodes.settings.reregister_after = 0.0
            nodes.wake()
            await world.until_ready(made.name)


class TestFaults:
    async def test_a_machine_never_joins_and_another_joins_late(self, world: World) -> None:
        well, never, late = machine("well"), machine("never"), machine("late")
        async with world.nodes() as nodes, asyncio.timeout(DEADLINE):
            fault = nodes.add_fault(FaultKind.NEVER_JOINS, pool="never")
            nodes.add_fault(FaultKind.JOINS_LATE, node="aks-late-*", seconds=100)
            await world.machines.set(well, never, late)
            await nodes.journal.wait(What.READY, node=late.name)
            assert await world.get(f"{NODES}/{never.name}") is None
            joined = {entry.node: entry.at for entry in nodes.happenings if entry.what is What.JOINED}
            assert joined[late.name] - joined[well.name] >= 90
            nodes.clear(fault)
            await nodes.journal.wait(What.READY, node=never.name)

    async def test_a_node_is_not_ready_as_long_as_told(self, world: World) -> None:
        made, well = machine("ill"), machine("healthy")
        async with world.nodes() as nodes, asyncio.timeout(DEADLINE):
            fault = nodes.add_fault(FaultKind.NOT_READY, pool="ill")
            await world.machines.set(made, well)
            await world.until_ready(well.name)
            assert not is_true(await world.node(made.name), "Ready")
            nodes.clear(fault)
            await world.until_ready(made.name)
            nodes.add_fault(FaultKind.NOT_READY, pool="ill")
            ready = find(await world.until_ready(made.name, ready=False), "Ready")
            assert ready is not None
            assert (ready["status"], ready["message"][:4]) == ("False", "PLEG")

    async def test_a_kubelet_stops_and_comes_back(self, world: World) -> None:
        made = machine("stops")
        async with world.nodes(lease_interval_real=0.05) as nodes, asyncio.timeout(DEADLINE):
            await world.machines.set(made)
            await world.api.call("POST", PODS, body=pod("stops"))
            await world.until_condition(f"{PODS}/stops", "Ready")
            nodes.add_fault(FaultKind.KUBELET_STOPS, pool="stops")
            await nodes.journal.wait(What.SILENT, node=made.name)
            lease = await world.api.call("GET", f"{LEASES}/{made.name}")
            silence = datetime.now(UTC) - datetime.fromisoformat(lease["spec"]["renewTime"])
            # Four intervals fit into the grace period at this scale.
            assert silence.total_seconds() > 0.15
            node = await world.until_ready(made.name, ready=False)
            ready = find(node, "Ready")
            assert ready is not None
            assert ready["status"] == "Unknown"

            async def pod_unready() -> bool:
                return not is_true(await world.api.call("GET", f"{PODS}/stops"), "Ready")

            await until(pod_unready)
            nodes.clear()
            await world.until_ready(made.name)
            await world.until_condition(f"{PODS}/stops", "Ready")

    async def test_a_node_vanishes(self, world: World) -> None:
        made = machine("vanish")
        async with world.nodes() as nodes, asyncio.timeout(DEADLINE):
            await world.machines.set(made)
            await world.until_ready(made.name)
            nodes.add_fault(FaultKind.VANISHES, pool="vanish")
            await nodes.journal.wait(What.NODE_DELETED, node=made.name)
            assert await world.get(f"{NODES}/{made.name}") is None
            assert [row["state"] for row in nodes.describe()["nodes"] if row["name"] == made.name] == ["node deleted"]


class TestRestarts:
    async def test_a_new_instance_takes_over_nodes_pods_and_what_is_left_of_gone_machines(self, world: World) -> None:
        stays, leaves = machine("takeover"), machine("takeover", 1)
        async with world.nodes():
            await world.machines.set(stays, leaves)
            await world.api.call(
                "POST", PODS, body=pod("takeover", nodeSelector={"kubernetes.io/hostname": stays.name})
            )
            before = await world.until_ready(stays.name)
            running = await world.until_condition(f"{PODS}/takeover", "Ready")
            await world.until_ready(leaves.name)
        await world.machines.set(stays)
        async with world.nodes() as nodes, asyncio.timeout(DEADLINE):
            await nodes.journal.wait(What.NODE_REMOVED, node=leaves.name)
            after = await world.node(stays.name)
            assert after["metadata"]["uid"] == before["metadata"]["uid"]
            kinds = {entry.what for entry in nodes.happenings if entry.node == stays.name}
            assert kinds == {What.ADOPTED}
            pod_after = await world.api.call("GET", f"{PODS}/takeover")
            assert pod_after["status"] == running["status"]
            await world.api.call("DELETE", f"{PODS}/takeover")
            await world.until_gone(f"{PODS}/takeover")

    async def test_an_outage_of_the_api_server_delays_and_loses_nothing(self, world: World) -> None:
        first, second = machine("outage"), machine("outage", 1)
        async with world.nodes() as nodes, asyncio.timeout(DEADLINE):
            await world.machines.set(first)
            await world.until_ready(first.name)
            await asyncio.to_thread(world.cluster.stop_apiserver)
            await world.machines.set(first, second)
            fault = nodes.add_fault(FaultKind.NOT_READY, node=first.name)
            await asyncio.to_thread(world.cluster.start_apiserver)
            await world.until_ready(second.name)
            await world.until_ready(first.name, ready=False)
            nodes.clear(fault)
            await world.until_ready(first.name)
