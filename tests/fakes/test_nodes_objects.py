"""What the fake nodes write, from what they know: no API, no time."""

from dataclasses import replace
from typing import Any

import pytest

from fakes.nodes.addresses import AddressBook
from fakes.nodes.conditions import find, merged
from fakes.nodes.faults import Fault, FaultKind, Faults
from fakes.nodes.node_object import (
    UNINITIALIZED,
    allocatable,
    capacity,
    cloud_labels,
    initialized,
    kubelet_labels,
    new_node,
    node_info,
    parse_taint,
    pool_update,
    reserved_cpu,
    taints,
)
from fakes.nodes.node_status import NO_NETWORK, allocatable_gpus, conditions, report, silence
from fakes.nodes.pod_faults import PodFault, PodFaults
from fakes.nodes.pod_plan import Stage, is_device_plugin, plan_for, stage_at
from fakes.nodes.pod_status import report as pod_report
from fakes.nodes.settings import NodeSettings
from tests.fakes.nodes_support import FakeMachine, machine

SETTINGS = NodeSettings()
NOW, LATER = "2026-11-21T10:00:00Z", "2026-11-21T10:05:00Z"


def node_of(made: FakeMachine, **status: Any) -> dict[str, Any]:
    node = new_node(made, address="10.224.0.4", settings=SETTINGS)
    node["metadata"]["resourceVersion"] = "7"
    node["status"] |= status
    return node


class TestLabels:
    def test_registers_with_the_labels_aks_gives_the_kubelet(self) -> None:
        labels = kubelet_labels(machine("gpu1", node_labels={"kaito.sh/workspace": "phi"}), SETTINGS)
        assert labels["agentpool"] == labels["kubernetes.azure.com/agentpool"] == "gpu1"
        assert labels["accelerator"] == labels["kubernetes.azure.com/accelerator"] == "nvidia"
        assert labels["kubernetes.azure.com/cluster"] == "mc_rg_aks_swedencentral"
        assert labels["kubernetes.azure.com/mode"] == "user"
        assert labels["kubernetes.azure.com/os-sku-effective"] == "Ubuntu2204"
        assert labels["kubernetes.azure.com/sku-memory"] == "225280"
        assert labels["kubernetes.io/hostname"] == "aks-gpu1-12345678-vmss000000"
        assert labels["kaito.sh/workspace"] == "phi"
        assert "kubernetes.azure.com/scalesetpriority" not in labels

    @pytest.mark.parametrize(("zone", "label", "disk"), [(None, "0", ""), ("2", "swedencentral-2", "swedencentral-2")])
    def test_zone_label_is_zero_for_a_regional_machine(self, zone: str | None, label: str, disk: str) -> None:
        labels = cloud_labels(machine("gpu1", zone=zone))
        assert labels["topology.kubernetes.io/zone"] == label
        assert labels["topology.disk.csi.azure.com/zone"] == disk

    @pytest.mark.parametrize(("vendor", "present"), [("nvidia", True), ("amd", False), (None, False)])
    def test_accelerator_label_is_for_nvidia_alone(self, vendor: str | None, present: bool) -> None:
        assert ("accelerator" in kubelet_labels(machine("gpu1", gpu_vendor=vendor), SETTINGS)) is present

    def test_spot_machines_carry_label_and_taint_whether_asked_for_or_not(self) -> None:
        bare = machine("spot", priority="Spot", node_taints=())
        told = machine("spot", priority="Spot", node_taints=("kubernetes.azure.com/scalesetpriority=spot:NoSchedule",))
        assert kubelet_labels(bare, SETTINGS)["kubernetes.azure.com/scalesetpriority"] == "spot"
        assert taints(bare) == taints(told)
        assert len(taints(bare)) == 1

    def test_a_long_resource_group_is_cut_to_the_length_of_a_label(self) -> None:
        settings = NodeSettings(node_resource_group="MC_" + "x" * 59 + "_uksouth")
        assert kubelet_labels(machine("gpu1"), settings)["kubernetes.azure.com/cluster"] == "MC_" + "x" * 59

    @pytest.mark.parametrize(
        ("size", "architecture"),
        [
            ("Standard_NC24ads_A100_v4", "amd64"),
            ("Standard_NP10s", "amd64"),
            ("Standard_D4ps_v6", "arm64"),
            ("Standard_ND128isr_NDR_GB200_v6", "arm64"),
        ],
    )
    def test_architecture_follows_the_size(self, size: str, architecture: str) -> None:
        assert node_info(machine("any", vm_size=size))["architecture"] == architecture


class TestTaints:
    @pytest.mark.parametrize(
        ("text", "taint"),
        [
            ("sku=gpu:NoSchedule", {"key": "sku", "value": "gpu", "effect": "NoSchedule"}),
            ("sku:NoExecute", {"key": "sku", "effect": "NoExecute"}),
            ("a.b/c=:NoSchedule", {"key": "a.b/c", "value": "", "effect": "NoSchedule"}),
        ],
    )
    def test_arm_spelling_is_understood(self, text: str, taint: dict[str, str]) -> None:
        assert parse_taint(text) == taint

    def test_a_taint_without_effect_is_refused(self) -> None:
        with pytest.raises(ValueError, match="without effect"):
            parse_taint("sku=gpu")

    def test_initialising_takes_its_own_taint_off_and_no_other(self) -> None:
        node = node_of(machine("gpu1"))
        assert UNINITIALIZED in node["spec"]["taints"]
        assert "providerID" not in node["spec"]
        patch = initialized(node, machine("gpu1"))
        assert patch["spec"]["taints"] == [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
        assert patch["spec"]["providerID"] == machine("gpu1").provider_id

    def test_without_a_delay_the_node_registers_initialised(self) -> None:
        node = new_node(machine("gpu1"), address="10.224.0.4", settings=NodeSettings(cloud_init_delay=0))
        assert node["spec"]["providerID"] == machine("gpu1").provider_id
        assert node["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "Standard_NC24ads_A100_v4"
        assert UNINITIALIZED not in node["spec"]["taints"]

    def test_a_change_of_the_pool_replaces_what_the_pool_gave_and_keeps_the_rest(self) -> None:
        before = machine("gpu1", node_labels={"old": "1", "same": "1"})
        after = machine("gpu1", node_labels={"new": "1", "same": "1"}, node_taints=("team=a:NoSchedule",))
        patch = pool_update(node_of(before), before=before, after=after)
        assert patch is not None
        assert patch["metadata"]["labels"] == {"old": None, "new": "1"}
        assert [taint["key"] for taint in patch["spec"]["taints"]] == [UNINITIALIZED["key"], "team"]
        assert pool_update(node_of(after), before=after, after=after) is None


class TestResources:
    def test_numbers_match_a_node_seen_on_aks(self) -> None:
        # Standard_B8ms, AKS 1.32: capacity 32859916Ki and 129886128Ki; allocatable 7820m, 30453516Ki, 119703055367.
        seen = machine("system", vcpus=8, memory_gib=32.0, os_disk_gib=128, max_pods=110)
        memory, disk = (int(capacity(seen)[name].removesuffix("Ki")) for name in ("memory", "ephemeral-storage"))
        assert memory == pytest.approx(32859916, rel=0.001)
        assert disk == pytest.approx(129886128, rel=0.001)
        assert allocatable(seen)["cpu"] == "7820m"
        assert memory - int(allocatable(seen)["memory"].removesuffix("Ki")) == 32859916 - 30453516
        assert int(allocatable(seen)["ephemeral-storage"]) == pytest.approx(119703055367, rel=0.001)

    @pytest.mark.parametrize(
        ("vcpus", "reserved"), [(1, 60), (2, 100), (4, 140), (8, 180), (16, 260), (32, 420), (64, 740)]
    )
    def test_reserved_cpu_follows_the_published_table(self, vcpus: int, reserved: int) -> None:
        assert reserved_cpu(vcpus) == reserved

    def test_small_machines_reserve_a_quarter_of_their_memory(self) -> None:
        small = machine("system", memory_gib=4.0, max_pods=250)
        memory = int(capacity(small)["memory"].removesuffix("Ki"))
        assert int(allocatable(small)["memory"].removesuffix("Ki")) == memory - int(memory * 0.25) - 100 * 1024


class TestNodeStatus:
    def test_gpus_enter_capacity_and_allocatable_together(self) -> None:
        patch = self.report(node_of(machine("gpu1")), gpus=4)
        assert patch["status"]["capacity"] == patch["status"]["allocatable"] == {"nvidia.com/gpu": "4"}
        assert patch["metadata"]["resourceVersion"] == "7"

    def test_a_lost_device_plugin_leaves_capacity_and_takes_allocatable(self) -> None:
        node = node_of(machine("gpu1"), capacity={"nvidia.com/gpu": "4"}, allocatable={"nvidia.com/gpu": "4"})
        patch = self.report(node, gpus=None)
        assert patch["status"]["allocatable"] == {"nvidia.com/gpu": "0"}
        assert "capacity" not in patch["status"]

    def test_amd_gpus_have_their_own_resource(self) -> None:
        patch = self.report(node_of(machine("amd", gpu_vendor="amd")), gpus=8, gpu_vendor="amd")
        assert patch["status"]["capacity"] == {"amd.com/gpu": "8"}

    def test_nothing_new_is_not_reported_unless_it_is_time(self) -> None:
        made = machine("gpu1")
        node = node_of(made, conditions=merged({}, conditions(None, now=NOW), now=NOW))
        assert report(node, made, not_ready=None, gpus=None, refresh=False, now=LATER) is None
        patch = report(node, made, not_ready=None, gpus=None, refresh=True, now=LATER)
        assert patch is not None
        ready = find(patch, "Ready")
        assert ready is not None
        assert (ready["lastHeartbeatTime"], ready["lastTransitionTime"]) == (LATER, NOW)

    def test_conditions_of_others_survive_a_report(self) -> None:
        foreign = {"type": "KernelDeadlock", "status": "False", "lastTransitionTime": NOW}
        patch = self.report(node_of(machine("gpu1"), conditions=[foreign]), not_ready=NO_NETWORK)
        assert foreign in patch["status"]["conditions"]

    def test_silence_is_written_once_and_keeps_the_last_heartbeat(self) -> None:
        node = node_of(machine("gpu1"), conditions=merged({}, conditions(None, now=NOW), now=NOW))
        patch = silence(node, now=LATER)
        assert patch is not None
        ready = find(patch, "Ready")
        assert ready is not None
        assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
        assert (ready["lastHeartbeatTime"], ready["lastTransitionTime"]) == (NOW, LATER)
        assert silence({**node, "status": {**node["status"], **patch["status"]}}, now=LATER) is None

    @pytest.mark.parametrize(
        ("resources", "gpus"), [({}, None), ({"nvidia.com/gpu": "0"}, 0), ({"amd.com/gpu": "8"}, 8)]
    )
    def test_allocatable_gpus_tells_none_from_zero(self, resources: dict[str, str], gpus: int | None) -> None:
        assert allocatable_gpus(node_of(machine("gpu1"), allocatable=resources)) == gpus

    @staticmethod
    def report(
        node: dict[str, Any], *, gpus: int | None = None, not_ready: str | None = None, gpu_vendor: str = "nvidia"
    ) -> dict[str, Any]:
        made = machine("gpu1", gpu_vendor=gpu_vendor)
        patch = report(node, made, not_ready=not_ready, gpus=gpus, refresh=False, now=LATER)
        assert patch is not None
        return patch


def pod_of(*, notes: dict[str, str] | None = None, policy: str = "Always", **container: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "default", "uid": "u", "resourceVersion": "3", "annotations": notes},
        "spec": {"restartPolicy": policy, "containers": [{"name": "main", "image": "busybox", **container}]},
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]},
    }


class TestPods:
    @pytest.mark.parametrize(
        ("pod", "ages"),
        [
            (pod_of(), {0: Stage.CREATING, 3: Stage.READY, 9999: Stage.READY}),
            (pod_of(readinessProbe={}), {3: Stage.RUNNING, 8: Stage.READY}),
            (pod_of(notes={"fake.nodes/ready-after": "100"}), {3: Stage.RUNNING, 103: Stage.READY}),
            (pod_of(notes={"fake.nodes/start-after": "9"}), {8: Stage.CREATING, 9: Stage.READY}),
            (pod_of(policy="Never"), {3: Stage.READY, 33: Stage.SUCCEEDED}),
            (pod_of(policy="Never", notes={"fake.nodes/exit-code": "1"}), {33: Stage.FAILED}),
            (pod_of(policy="Never", notes={"fake.nodes/run-for": "5"}), {7: Stage.READY, 8: Stage.SUCCEEDED}),
            (pod_of(policy="OnFailure", notes={"fake.nodes/exit-code": "1"}), {33: Stage.CRASHED}),
            (pod_of(policy="OnFailure"), {33: Stage.SUCCEEDED}),
            (pod_of(notes={"fake.nodes/exit-code": "1", "fake.nodes/run-for": "0"}), {3: Stage.CRASHED}),
            (pod_of(notes={"fake.nodes/waiting": "ImagePullBackOff"}), {2: Stage.CREATING, 99: Stage.WAITING}),
            (pod_of(notes={"fake.nodes/waiting": "CrashLoopBackOff"}), {99: Stage.CRASHED}),
            (pod_of(notes={"fake.nodes/start-after": "soon"}), {3: Stage.READY}),
            (pod_of(notes={"fake.nodes/start-after": "-1"}), {2: Stage.CREATING}),
            (pod_of(notes={"fake.nodes/start-after": "nan"}), {3: Stage.READY}),
        ],
    )
    def test_stage_follows_age_spec_and_annotations(self, pod: dict[str, Any], ages: dict[float, Stage]) -> None:
        plan = plan_for(pod, SETTINGS)
        assert {age: stage_at(plan, age)[0] for age in ages} == ages

    def test_the_next_stage_is_announced(self) -> None:
        plan = plan_for(pod_of(policy="Never", readinessProbe={}), SETTINGS)
        assert [stage_at(plan, age)[1] for age in (0, 3, 8, 33)] == [3, 8, 33, None]

    def test_a_report_keeps_the_schedulers_condition_and_is_not_repeated(self) -> None:
        pod = pod_of()
        patch = self.report(pod, Stage.READY)
        assert patch is not None
        written = patch["status"]
        assert written["conditions"][0]["type"] == "PodScheduled"
        assert find(patch, "Ready") == {"type": "Ready", "status": "True", "lastTransitionTime": NOW}
        assert written["containerStatuses"][0]["state"] == {"running": {"startedAt": NOW}}
        assert self.report({**pod, "status": written}, Stage.READY, now=LATER) is None

    def test_an_exit_remembers_when_the_container_started(self) -> None:
        running = self.report(pod_of(policy="Never"), Stage.READY)
        assert running is not None
        pod = {**pod_of(policy="Never", notes={"fake.nodes/exit-code": "3"}), "status": running["status"]}
        patch = self.report(pod, Stage.FAILED, now=LATER)
        assert patch is not None
        state = {"exitCode": 3, "reason": "Error", "startedAt": NOW, "finishedAt": LATER}
        assert patch["status"]["containerStatuses"][0]["state"] == {"terminated": state}
        assert patch["status"]["phase"] == "Failed"

    def test_a_crash_loop_counts_a_restart_and_shows_the_last_exit(self) -> None:
        patch = self.report(pod_of(notes={"fake.nodes/exit-code": "9"}), Stage.CRASHED)
        assert patch is not None
        (container,) = patch["status"]["containerStatuses"]
        assert container["restartCount"] == 1
        assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        assert container["lastState"]["terminated"]["exitCode"] == 9

    def test_a_fault_says_how_containers_have_ended(self) -> None:
        fault = PodFault(exit_code=137, reason="OOMKilled", said="loading", restarts=4, message="back-off 80s")
        patch = self.report(pod_of(), Stage.CRASHED, fault=fault)
        assert patch is not None
        (container,) = patch["status"]["containerStatuses"]
        assert container["restartCount"] == 4
        assert container["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 80s"}}
        ended = container["lastState"]["terminated"]
        assert (ended["exitCode"], ended["reason"], ended["message"]) == (137, "OOMKilled", "loading")
        # Once it is over the container runs, and what was is still to be read.
        pod = {**pod_of(), "status": patch["status"]}
        after = self.report(pod, Stage.READY, now=LATER)
        assert after is not None
        (container,) = after["status"]["containerStatuses"]
        assert (container["ready"], container["restartCount"]) == (True, 4)
        assert container["lastState"]["terminated"] == ended

    def test_a_fault_of_init_containers_keeps_the_others_from_starting(self) -> None:
        pod = pod_of()
        pod["spec"]["initContainers"] = [{"name": "fetch"}]
        patch = self.report(pod, Stage.CRASHED, fault=PodFault(said="401", init=True))
        assert patch is not None
        status = patch["status"]
        assert status["phase"] == "Pending"
        assert status["initContainerStatuses"][0]["lastState"]["terminated"]["message"] == "401"
        assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
        initialized = find(patch, "Initialized")
        assert initialized is not None
        assert initialized["status"] == "False"

    def test_init_containers_finish_and_sidecars_stay(self) -> None:
        pod = pod_of()
        pod["spec"]["initContainers"] = [{"name": "fetch"}, {"name": "proxy", "restartPolicy": "Always"}]
        patch = self.report(pod, Stage.READY)
        assert patch is not None
        fetch, proxy = patch["status"]["initContainerStatuses"]
        assert fetch["state"]["terminated"]["exitCode"] == 0
        assert "running" in proxy["state"]

    @pytest.mark.parametrize(
        ("image", "labels", "vendor", "found"),
        [
            ("nvcr.io/nvidia/k8s-device-plugin:v0.20.1", {}, "nvidia", True),
            ("nvcr.io/nvidia/k8s-device-plugin:v0.20.1", {}, "amd", False),
            ("rocm/k8s-device-plugin", {}, "amd", True),
            ("rocm/k8s-device-plugin", {}, "nvidia", False),
            ("registry/mine:1", {"app.kubernetes.io/name": "nvidia-device-plugin"}, "nvidia", True),
            ("registry/mine:1", {"name": "gpu-device-plugin-ds"}, None, True),
            ("busybox", {"app": "nvidia-device-plugin"}, None, False),
        ],
    )
    def test_device_plugins_are_told_by_image_and_name(
        self, image: str, labels: dict[str, str], vendor: str | None, found: bool
    ) -> None:
        pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image}]}}
        assert is_device_plugin(pod, vendor=vendor) is found

    @staticmethod
    def report(
        pod: dict[str, Any], stage: Stage, *, now: str = NOW, fault: PodFault | None = None
    ) -> dict[str, Any] | None:
        plan = plan_for(pod, SETTINGS)
        if fault is not None and stage is Stage.CRASHED:
            plan = replace(plan, waiting=fault.waiting, message=fault.message, exit_code=fault.exit_code, fault=fault)
        return pod_report(pod, stage, plan=plan, host_ip="10.224.0.4", pod_ip="10.240.0.4", now=now)


class TestAddresses:
    def test_each_owner_has_one_and_none_is_given_twice(self) -> None:
        book = AddressBook("10.0.0.0/29")
        book.note("found", "10.0.0.4")
        assert [book.take(owner) for owner in ("a", "b", "a")] == ["10.0.0.5", "10.0.0.6", "10.0.0.5"]
        with pytest.raises(RuntimeError, match="no free address"):
            book.take("c")
        book.release("found")
        assert book.take("c") == "10.0.0.4"


class TestPodFaults:
    def test_globs_choose_the_pods_and_the_newest_fault_counts(self) -> None:
        changes: list[str] = []
        faults = PodFaults(on_change=lambda: changes.append("changed"))
        wide, narrow = PodFault(pod="default/*"), PodFault(pod="default/phi-0", waiting="ImagePullBackOff")
        faults.add(wide)
        faults.add(narrow)
        assert faults.find("default", "phi-0") == narrow
        assert faults.find("default", "phi-1") == wide
        assert faults.find("other", "phi-0") is None
        faults.clear(narrow)
        assert faults.find("default", "phi-0") == wide
        faults.clear()
        assert faults.find("default", "phi-0") is None
        assert len(changes) == 4


class TestFaults:
    def test_globs_choose_the_machines_and_the_newest_fault_counts(self) -> None:
        changes: list[str] = []
        faults = Faults(on_change=lambda: changes.append("changed"))
        wide = Fault(kind=FaultKind.JOINS_LATE, pool="gpu*", seconds=10)
        narrow = Fault(kind=FaultKind.JOINS_LATE, node="*000001", seconds=20)
        faults.add(wide)
        faults.add(narrow)
        first, second, other = machine("gpu1"), machine("gpu1", 1), machine("system")
        assert faults.find(FaultKind.JOINS_LATE, first) == wide
        assert faults.find(FaultKind.JOINS_LATE, second) == narrow
        assert faults.find(FaultKind.JOINS_LATE, other) is None
        assert faults.find(FaultKind.NEVER_JOINS, first) is None
        assert faults.of(second) == (FaultKind.JOINS_LATE,)
        faults.clear(wide)
        assert faults.find(FaultKind.JOINS_LATE, first) is None
        faults.clear()
        assert faults.of(second) == ()
        assert len(changes) == 4
