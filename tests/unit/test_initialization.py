"""Initialization: a registered Node can run the workload when it is ready, untainted, and its GPUs are there."""

from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.conditions import INITIALIZED, LAUNCHED, REGISTERED
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.nodeclaim.initialization import initialize
from provisioner.nodeclaim.view import Draft, NodePatch, Timeouts
from provisioner.placement.market import Placement, Refusal
from provisioner.placement.size import Size
from tests.unit.builders import (
    A100,
    CREATED,
    GPU_TAINT,
    NAME,
    NOT_READY_TAINT,
    NOW,
    condition,
    kaito_claim,
    node,
    provider_id,
    reached,
    recorded_claim,
    view,
)

REGISTERED_NODE = {names.REGISTERED_LABEL: "true"}
STARTUP = {"key": "example.com/starting", "value": "yes", "effect": "NoExecute"}


def registered_claim(**changes: Any) -> NodeClaim:
    status = {"providerID": provider_id(NAME), "nodeName": node().name, "conditions": reached(LAUNCHED, REGISTERED)}
    return recorded_claim(**{"status": status, **changes})


def after(claim: NodeClaim, *nodes: Node, **changes: Any) -> Draft:
    seen = view(claim, *nodes, **changes)
    draft = Draft(conditions=claim.condition_set(now=seen.now))
    initialize(seen, draft)
    return draft


def initialized(draft: Draft) -> tuple[str, str, str]:
    found = draft.conditions.get(INITIALIZED)
    assert found is not None
    return found.status, found.reason, found.message


def joined(**changes: Any) -> Node:
    return node(**{"labels": REGISTERED_NODE, **changes})


def test_complete_node_is_labelled_and_its_amounts_are_shown() -> None:
    complete = joined()
    draft = after(registered_claim(), complete)
    assert initialized(draft) == ("True", "Initialized", "")
    assert draft.node_patch == NodePatch(
        node=complete,
        patch={"metadata": {"labels": {"karpenter.sh/initialized": "true", "accelerator": "nvidia"}}},
    )
    assert draft.status == {"capacity": complete.capacity, "allocatable": complete.allocatable}


def test_label_is_added_to_the_patch_that_registers_the_node() -> None:
    fresh = node()
    claim = registered_claim()
    draft = Draft(conditions=claim.condition_set(now=view(claim).now))
    patch = {"metadata": {"labels": {"a": "b"}, "ownerReferences": []}, "spec": {"taints": []}}
    draft.node_patch = NodePatch(node=fresh, patch=patch)
    initialize(view(claim, fresh), draft)
    assert draft.node_patch.patch == {
        "metadata": {
            "labels": {"a": "b", "karpenter.sh/initialized": "true", "accelerator": "nvidia"},
            "ownerReferences": [],
        },
        "spec": {"taints": []},
    }


def test_node_that_is_labelled_already_is_not_written() -> None:
    labelled = {**REGISTERED_NODE, names.INITIALIZED_LABEL: "true", names.ACCELERATOR_LABEL: "nvidia"}
    draft = after(registered_claim(), joined(labels=labelled))
    assert draft.node_patch is None
    assert initialized(draft)[0] == "True"


@pytest.mark.parametrize(
    ("size", "label", "added"),
    [
        (A100, {}, {"accelerator": "nvidia"}),
        (A100, {"accelerator": "nvidia"}, {}),
        (A100, {"accelerator": "theirs"}, {}),
        ("Standard_ND96isr_MI300X_v5", {}, {}),
        ("Standard_D4s_v5", {}, {}),
    ],
)
def test_label_of_nvidias_gpus_is_added_where_aks_has_left_it_off(
    size: str, label: dict[str, str], added: dict[str, str]
) -> None:
    complete = joined(
        size=size, allocatable={"nvidia.com/gpu": "1", "amd.com/gpu": "8"}, labels=REGISTERED_NODE | label
    )
    draft = after(registered_claim(size=size), complete)
    assert draft.node_patch is not None
    assert draft.node_patch.patch == {"metadata": {"labels": {"karpenter.sh/initialized": "true"} | added}}


# What is missing, in Karpenter's order and words


@pytest.mark.parametrize(
    ("claim", "node", "reason", "message"),
    [
        ({}, {"ready": "False"}, "NodeNotReady", "Node status is NotReady"),
        ({}, {"ready": "Unknown"}, "NodeNotReady", "Node status is NotReady"),
        (
            {"startupTaints": [STARTUP]},
            {"taints": [STARTUP]},
            "StartupTaintsExist",
            'StartupTaint "example.com/starting=yes:NoExecute" still exists',
        ),
        (
            {},
            {"taints": [NOT_READY_TAINT]},
            "KnownEphemeralTaintsExist",
            'KnownEphemeralTaint "node.kubernetes.io/not-ready:NoSchedule" still exists',
        ),
        (
            {},
            {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]},
            "KnownEphemeralTaintsExist",
            'KnownEphemeralTaint "node.kubernetes.io/unreachable:NoSchedule" still exists',
        ),
        (
            {},
            {
                "taints": [
                    {"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"}
                ]
            },
            "KnownEphemeralTaintsExist",
            'KnownEphemeralTaint "node.cloudprovider.kubernetes.io/uninitialized=true:NoSchedule" still exists',
        ),
        (
            {},
            {"taints": [{"key": "karpenter.sh/unregistered", "effect": "NoExecute"}]},
            "KnownEphemeralTaintsExist",
            'KnownEphemeralTaint "karpenter.sh/unregistered:NoExecute" still exists',
        ),
        (
            {},
            {"taints": [{"key": "readiness.k8s.io/network", "effect": "NoSchedule"}]},
            "KnownEphemeralTaintsExist",
            'KnownEphemeralTaint "readiness.k8s.io/network:NoSchedule" still exists',
        ),
        (
            {"resources": {"requests": {"storage": "87Gi", "amd.com/gpu": "1"}}},
            {},
            "ResourceNotRegistered",
            'Resource "amd.com/gpu" was requested but not registered',
        ),
        (
            {"resources": {"requests": {"nvidia.com/gpu": "1"}}},
            {"gpus": 0},
            "ResourceNotRegistered",
            'Resource "nvidia.com/gpu" was requested but not registered',
        ),
    ],
)
def test_first_thing_that_is_missing_is_named(
    claim: dict[str, Any], node: dict[str, Any], reason: str, message: str
) -> None:
    draft = after(registered_claim(**claim), joined(**node))
    assert initialized(draft) == ("Unknown", reason, message)
    assert (draft.node_patch, draft.status) == (None, {})


LADDER = ["NodeNotReady", "StartupTaintsExist", "KnownEphemeralTaintsExist", "ResourceNotRegistered"]


def test_readiness_comes_before_taints_and_taints_before_resources() -> None:
    faults: dict[str, Any] = {"ready": "False", "taints": [STARTUP, NOT_READY_TAINT], "gpus": 0}
    cures: list[dict[str, Any]] = [{}, {"ready": "True"}, {"taints": [NOT_READY_TAINT]}, {"taints": []}, {"gpus": 1}]
    seen = []
    for cure in cures:
        faults |= cure
        seen.append(initialized(after(registered_claim(startupTaints=[STARTUP]), joined(**faults)))[1])
    assert seen == [*LADDER, "Initialized"]


@pytest.mark.parametrize(
    "taint",
    [
        GPU_TAINT,
        {"key": "node.kubernetes.io/not-ready", "effect": "PreferNoSchedule"},
        {"key": "node.cloudprovider.kubernetes.io/uninitialized", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
        {"key": "karpenter.sh/unregistered", "effect": "NoSchedule"},
    ],
)
def test_other_taints_do_not_matter(taint: dict[str, str]) -> None:
    assert initialized(after(registered_claim(), joined(taints=[taint])))[0] == "True"


def test_startup_taint_that_was_not_put_on_the_node_yet_is_not_taken_for_removed() -> None:
    draft = after(registered_claim(startupTaints=[STARTUP]), node(taints=[]))
    assert initialized(draft)[1] == "StartupTaintsExist"


def test_storage_is_never_awaited() -> None:
    assert "storage" in kaito_claim()["spec"]["resources"]["requests"]
    assert "storage" not in joined().allocatable
    assert initialized(after(registered_claim(), joined()))[0] == "True"


@pytest.mark.parametrize("amount", ["0", "0Gi"])
def test_request_of_nothing_is_not_awaited(amount: str) -> None:
    requests = {"requests": {"example.com/fpga": amount}}
    assert initialized(after(registered_claim(resources=requests), joined()))[0] == "True"


def test_request_is_met_by_any_amount_as_in_karpenter() -> None:
    requests = {"requests": {"cpu": "500"}}
    assert initialized(after(registered_claim(resources=requests), joined()))[0] == "True"


# GPUs that nobody has requested


@pytest.mark.parametrize(("size", "registered"), [(A100, None), (A100, 0), ("Standard_NC48ads_A100_v4", 1)])
def test_gpus_of_the_size_are_awaited_although_the_claim_requests_none(size: str, registered: int | None) -> None:
    expected = 1 if size == A100 else 2
    draft = after(registered_claim(size=size), joined(size=size, gpus=registered))
    message = (
        f"{registered or 0} of {expected} nvidia.com/gpu registered on Node {node().name} ({size}). "
        "Waiting for driver and device plugin; if this lasts, check the device plugin's pod on that Node."
    )
    assert initialized(draft) == ("Unknown", "ResourceNotRegistered", message)


def test_gpus_that_are_there_but_not_allocatable_are_awaited() -> None:
    broken = joined(gpus=1, allocatable={"nvidia.com/gpu": "0"})
    assert initialized(after(registered_claim(), broken))[2].startswith("0 of 1 nvidia.com/gpu registered")


@pytest.mark.parametrize("registered", [1, 2, 7])
def test_more_gpus_than_expected_are_slices_or_shares(registered: int) -> None:
    assert initialized(after(registered_claim(), joined(gpus=registered)))[0] == "True"


def test_gpus_of_amd_go_by_their_own_name() -> None:
    size = "Standard_ND96isr_MI300X_v5"
    waiting = after(registered_claim(size=size), joined(size=size, gpus=8))
    assert initialized(waiting)[2].startswith("0 of 8 amd.com/gpu registered")
    complete = joined(size=size, gpus=None, allocatable={"amd.com/gpu": "8"})
    assert initialized(after(registered_claim(size=size), complete))[0] == "True"


@pytest.mark.parametrize(
    "changes",
    [
        {"wait_for_gpus": False},
        {"placement": Placement(refusal=Refusal(reason="UnknownInstanceType", message="gone"))},
    ],
    ids=["by setting", "size no longer known"],
)
def test_gpus_are_not_awaited(changes: dict[str, Any]) -> None:
    assert initialized(after(registered_claim(), joined(gpus=0), **changes))[0] == "True"


def test_size_without_gpus_awaits_none() -> None:
    size = "Standard_D4s_v5"
    assert initialized(after(registered_claim(size=size), joined(size=size, gpus=None)))[0] == "True"


# GPUs that do not come

LIMIT = timedelta(minutes=10)
READY_SINCE = CREATED + timedelta(minutes=5)
GPU = names.NVIDIA_GPU


def after_a_while(
    claim: NodeClaim, node: Node, *, minutes: float = 10, limit: timedelta | None = LIMIT, **changes: Any
) -> Draft:
    """Look at a Node that has been Ready for so many minutes."""
    now = READY_SINCE + timedelta(minutes=minutes)
    return after(claim, node, now=now, timeouts=Timeouts(gpus=limit), **changes)


@pytest.mark.parametrize(
    ("size", "capacity", "allocatable", "reason", "start"),
    [
        (A100, {}, {}, "DevicePluginNotReady", "0 of 1 nvidia.com/gpu on Node"),
        (A100, {GPU: "0"}, {GPU: "0"}, "DevicePluginNotReady", "0 of 1 nvidia.com/gpu on Node"),
        ("Standard_NC48ads_A100_v4", {GPU: "1"}, {GPU: "1"}, "GPUsMissing", "1 of 2 nvidia.com/gpu on Node"),
        ("Standard_NC48ads_A100_v4", {GPU: "1"}, {GPU: "0"}, "GPUsMissing", "1 of 2 nvidia.com/gpu on Node"),
        (A100, {GPU: "1"}, {GPU: "0"}, "GPUsUnhealthy", "0 of 1 nvidia.com/gpu allocatable on Node"),
        (A100, {GPU: "1"}, {}, "GPUsUnhealthy", "0 of 1 nvidia.com/gpu allocatable on Node"),
        (
            "Standard_NC48ads_A100_v4",
            {GPU: "2"},
            {GPU: "1"},
            "GPUsUnhealthy",
            "1 of 2 nvidia.com/gpu allocatable on Node",
        ),
        ("Standard_ND96isr_MI300X_v5", {GPU: "8"}, {}, "DevicePluginNotReady", "0 of 8 amd.com/gpu on Node"),
    ],
)
@pytest.mark.parametrize("requests", [{}, {"nvidia.com/gpu": "1", "amd.com/gpu": "1"}], ids=["size", "request"])
def test_amounts_on_the_node_tell_what_is_wrong_with_gpus_that_do_not_come(
    size: str, capacity: Any, allocatable: Any, reason: str, start: str, requests: dict[str, str]
) -> None:
    gpus = {names.AMD_GPU if "MI300X" in size else GPU}
    wanted = {"requests": {resource: amount for resource, amount in requests.items() if resource in gpus}}
    broken = joined(size=size, since=READY_SINCE, capacity=capacity, allocatable=allocatable)
    status, told, message = initialized(after_a_while(registered_claim(size=size, resources=wanted), broken))
    assert (status, told) == ("Unknown", reason)
    assert message.startswith(start)
    assert "after 10 min" in message.encode()[:256].decode()
    assert ("amd-smi" if "MI300X" in size else "nvidia-smi") in message or reason == "GPUsUnhealthy"


def test_missing_plugin_is_named_with_where_to_look_within_what_clients_show() -> None:
    _, _, message = initialized(after_a_while(registered_claim(), joined(gpus=None, since=READY_SINCE)))
    shown = message.encode()[:256].decode()
    assert "driver or device plugin is missing" in shown
    assert "kubectl get pods -A -o wide" in shown
    assert "nvidia-smi" in shown


@pytest.mark.parametrize(
    ("minutes", "limit", "reason", "again"),
    [
        (9, LIMIT, "ResourceNotRegistered", timedelta(minutes=1)),
        (10, LIMIT, "DevicePluginNotReady", None),
        (9, timedelta(minutes=9), "DevicePluginNotReady", None),
        (10_000, None, "ResourceNotRegistered", None),
    ],
)
def test_gpus_are_given_time(minutes: int, limit: timedelta | None, reason: str, again: timedelta | None) -> None:
    draft = after_a_while(registered_claim(), joined(gpus=None, since=READY_SINCE), minutes=minutes, limit=limit)
    assert (initialized(draft)[1], draft.again_after) == (reason, again)


def test_time_of_gpus_begins_when_the_node_has_registered_where_that_was_later() -> None:
    late = condition(REGISTERED, "True", REGISTERED, since=READY_SINCE + timedelta(minutes=4))
    status = {"providerID": provider_id(NAME), "conditions": [*reached(LAUNCHED), late]}
    draft = after_a_while(registered_claim(status=status), joined(gpus=None, since=READY_SINCE))
    assert (initialized(draft)[1], draft.again_after) == ("ResourceNotRegistered", timedelta(minutes=4))


def test_other_missing_resource_comes_before_gpus_that_do_not_come() -> None:
    claim = registered_claim(resources={"requests": {"nvidia.com/gpu": "1", "example.com/fpga": "1"}})
    size = Size(name=A100, gpu_count=1)
    _, reason, message = initialized(after_a_while(claim, joined(gpus=None, since=READY_SINCE), recorded_size=size))
    assert reason == "ResourceNotRegistered"
    assert message == 'Resource "example.com/fpga" was requested but not registered'


def test_gpus_that_come_late_make_the_claim_initialized_all_the_same() -> None:
    told = condition(INITIALIZED, "Unknown", "GPUsMissing", "1 of 2")
    status = {"providerID": provider_id(NAME), "conditions": [*reached(LAUNCHED, REGISTERED), told]}
    assert initialized(after_a_while(registered_claim(status=status), joined(since=READY_SINCE)))[0] == "True"


# When it is not the turn of initialization


def test_claim_that_is_not_registered_is_not_initialized() -> None:
    claim = recorded_claim(status={"providerID": provider_id(NAME), "conditions": reached(LAUNCHED)})
    assert initialized(after(claim, joined()))[1] == "AwaitingReconciliation"


@pytest.mark.parametrize("nodes", [[], [joined(deleting=True)]], ids=["gone", "going"])
def test_registered_claim_whose_node_is_gone_says_so(nodes: list[Node]) -> None:
    assert initialized(after(registered_claim(), *nodes)) == (
        "Unknown",
        "NodeNotFound",
        "Node not registered with cluster",
    )


def test_initialized_claim_stays_so_whatever_becomes_of_its_node() -> None:
    status = {"providerID": provider_id(NAME), "conditions": reached(LAUNCHED, REGISTERED, INITIALIZED)}
    draft = after(registered_claim(status=status, generation=2), joined(ready="False", gpus=0))
    assert initialized(draft)[0] == "True"
    assert (draft.node_patch, draft.status) == (None, {})
    found = draft.conditions.get(INITIALIZED)
    assert found is not None
    assert found.observed_generation == 2


NOT_READY_YET = condition(INITIALIZED, "Unknown", "NodeNotReady", "Node status is NotReady")


@pytest.mark.parametrize(
    ("age", "reason", "again_after"),
    [
        (timedelta(0), "NodeNotReady", timedelta(seconds=3)),
        (timedelta(seconds=2), "NodeNotReady", timedelta(seconds=1)),
        (timedelta(seconds=3), "KnownEphemeralTaintsExist", None),
        (timedelta(seconds=-1), "KnownEphemeralTaintsExist", None),
    ],
    ids=["Ready just now", "Ready since moments", "Ready for long", "Ready in the future"],
)
def test_what_a_node_lacks_is_written_once_it_has_been_ready_for_a_moment(
    age: timedelta, reason: str, again_after: timedelta | None
) -> None:
    status = {"providerID": provider_id(NAME), "conditions": [*reached(LAUNCHED, REGISTERED), NOT_READY_YET]}
    draft = after(registered_claim(status=status), joined(since=NOW - age, taints=[NOT_READY_TAINT]))
    assert initialized(draft)[:2] == ("Unknown", reason)
    assert draft.again_after == again_after


def test_what_a_node_lacks_is_written_at_once_with_the_registration() -> None:
    claim = recorded_claim(status={"providerID": provider_id(NAME), "conditions": [*reached(LAUNCHED), NOT_READY_YET]})
    seen = view(claim, joined(since=NOW, taints=[NOT_READY_TAINT]))
    draft = Draft(conditions=claim.condition_set(now=seen.now))
    draft.conditions.set_true(REGISTERED)
    initialize(seen, draft)
    assert initialized(draft)[:2] == ("Unknown", "KnownEphemeralTaintsExist")


def test_complete_node_is_not_waited_for() -> None:
    status = {"providerID": provider_id(NAME), "conditions": [*reached(LAUNCHED, REGISTERED), NOT_READY_YET]}
    draft = after(registered_claim(status=status), joined(since=NOW))
    assert initialized(draft)[0] == "True"
    assert draft.again_after is None
