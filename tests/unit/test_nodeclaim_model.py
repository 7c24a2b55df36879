"""NodeClaims, Nodes and agent pools are read as they come, whatever their authors wrote."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.apis import names
from provisioner.apis.agentpool import parse_agent_pool, pool_of_provider_id, resource_group_of_provider_id
from provisioner.apis.conditions import READY
from provisioner.apis.nodeclaim import NodeClaim, Requirement, parse_nodeclaim
from provisioner.apis.taints import Taint
from tests.unit import builders
from tests.unit.builders import A100, CREATED, NAME, NOW, UID, claim, condition, kaito_claim, node, provider_id, spec_of


def bare_claim(**spec: Any) -> NodeClaim:
    return parse_nodeclaim({"metadata": {"name": "c", "uid": "u"}, "spec": spec})


def test_claim_of_kaito_is_read_with_all_that_a_provider_needs() -> None:
    read = claim(status={"providerID": "azure:///x", "nodeName": "n", "conditions": [condition(READY, "True", READY)]})
    assert (read.name, read.uid, read.resource_version, read.generation) == (NAME, UID, "100", 1)
    assert (read.created, read.deleted, read.finalizers) == (CREATED, None, ())
    assert (read.provider_id, read.node_name, read.is_true(READY)) == ("azure:///x", "n", True)
    assert read.labels[names.WORKSPACE_LABEL] == "workspace-phi-4-mini"
    assert read.annotations[names.NODE_IMAGE_FAMILY_ANNOTATION] == "ubuntu"
    spec = spec_of(read)
    assert spec.requirements[1] == Requirement(key=names.INSTANCE_TYPE_LABEL, operator="In", values=(A100,))
    assert spec.requests == {"storage": Decimal(87 << 30)}
    assert spec.taints == (Taint(key="sku", value="gpu", effect="NoSchedule"),)
    assert (spec.startup_taints, spec.termination_grace_period) == ((), None)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (
            {"resources": {"requests": {"storage": "lots"}}},
            "spec.resources.requests.storage: 'lots' is not a Kubernetes quantity such as 87Gi or 1Ti",
        ),
        ({"requirements": [{"key": "a", "operator": "Near"}]}, "spec.requirements.0.operator: Input should be 'In'"),
        ({"requirements": "all"}, "spec.requirements: "),
        ({"taints": [{"key": "a", "effect": "Sometimes"}]}, "spec.taints.0.effect: "),
        ({"startupTaints": [{"effect": "NoSchedule"}]}, "spec.startupTaints.0.key: Field required"),
    ],
)
def test_spec_that_cannot_be_read_is_named_and_the_rest_of_the_claim_is_kept(spec: dict[str, Any], why: str) -> None:
    read = claim(**spec, finalizers=[names.TERMINATION_FINALIZER], deleted=NOW, status={"providerID": "azure:///x"})
    assert read.spec is None
    assert read.spec_error.startswith(why)
    assert "\n" not in read.spec_error
    assert (read.name, read.uid, read.provider_id) == (NAME, UID, "azure:///x")
    assert read.is_managed
    assert read.is_deleting
    assert read.has_finalizer


@pytest.mark.parametrize(
    ("node_class", "labels", "is_managed"),
    [
        ({"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"}, {}, True),
        ({"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "big"}, {}, True),
        ({"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}, {}, False),
        ({"group": "karpenter.azure.com", "kind": "AKSNodeClass"}, {"kaito.sh/workspace": "w"}, True),
        ({"group": "karpenter.azure.com", "kind": "AKSNodeClass"}, {"kaito.sh/ragengine": "r"}, True),
        ({"kind": "KaitoNodeClass", "name": "default"}, {}, False),
        ({"kind": "KaitoNodeClass", "name": "default"}, {"kaito.sh/workspace": ""}, True),
        ({"group": "kaito.sh.evil", "kind": "KaitoNodeClass"}, {}, False),
        ({"group": "kaito.sh", "kind": "kaitonodeclass"}, {}, False),
        (None, {}, False),
        ({"group": ["kaito.sh"], "kind": "KaitoNodeClass"}, {}, False),
    ],
)
def test_claim_is_ours_by_its_node_class_or_by_a_label_of_kaito(
    node_class: object, labels: dict[str, str], is_managed: bool
) -> None:
    assert claim(nodeClassRef=node_class, labels=labels).is_managed is is_managed


def test_claim_with_nothing_but_a_name_and_a_uid_is_read() -> None:
    read = parse_nodeclaim({"metadata": {"name": "c", "uid": "u"}})
    assert (read.generation, read.created, read.conditions) == (1, datetime(1970, 1, 1, tzinfo=UTC), ())
    assert spec_of(read).requirements == ()
    assert not read.is_managed
    assert not read.is_deleting
    assert read.agent_pool == ""


def test_condition_without_a_time_counts_from_the_claims_creation() -> None:
    stored = {"type": READY, "status": "True", "reason": READY}
    assert claim(status={"conditions": [stored]}).conditions[0].last_transition == CREATED


def test_amounts_are_read_from_text_and_from_numbers() -> None:
    read = bare_claim(resources={"requests": {"cpu": "500m", "nvidia.com/gpu": 2, "memory": "1e3"}})
    assert spec_of(read).requests == {"cpu": Decimal("0.5"), "nvidia.com/gpu": 2, "memory": 1000}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(spec=st.dictionaries(st.sampled_from(["requirements", "resources", "taints", "nodeClassRef"]), _JSON))
def test_whatever_stands_in_spec_the_claim_is_read_and_can_be_deleted(spec: dict[str, Any]) -> None:
    read = parse_nodeclaim({**kaito_claim(finalizers=[names.TERMINATION_FINALIZER]), "spec": spec})
    assert (read.spec is None) == bool(read.spec_error)
    assert (read.name, read.has_finalizer) == (NAME, True)


# Nodes


def test_node_is_read_with_all_that_a_provider_needs() -> None:
    read = node(ready="Unknown", owner=UID, taints=[{**builders.GPU_TAINT, "timeAdded": "2026-11-21T04:40:00Z"}])
    assert read.agent_pool == NAME
    assert read.provider_id == provider_id(NAME)
    assert read.owner_uids == (UID,)
    assert read.taints == (Taint(key="sku", value="gpu", effect="NoSchedule"),)
    assert read.raw_taints[0]["timeAdded"] == "2026-11-21T04:40:00Z"
    assert not read.is_ready


def test_taint_with_an_effect_of_a_future_kubernetes_is_kept_but_not_understood() -> None:
    read = node(taints=[{"key": "a", "effect": "NoDreams"}])
    assert read.taints == ()
    assert read.raw_taints == ({"key": "a", "effect": "NoDreams"},)


@pytest.mark.parametrize(("stored", "amount"), [({}, 0), ({"nvidia.com/gpu": "8"}, 8), ({"nvidia.com/gpu": "?"}, 0)])
def test_resource_that_a_node_does_not_offer_counts_as_none(stored: dict[str, str], amount: int) -> None:
    assert node(allocatable=stored).allocatable_of("nvidia.com/gpu") == amount


# Agent pools


@pytest.mark.parametrize(
    ("raw", "code", "message"),
    [
        (
            {"code": "CreateVMSSAgentPoolFailed", "message": "It failed.", "details": [{"code": "A", "message": "B"}]},
            "A",
            "B",
        ),
        (
            {"code": "O", "message": "o", "details": [{"code": "A", "message": "B", "details": [{"message": "C"}]}]},
            "",
            "C",
        ),
        ({"code": "O", "message": "o", "details": [{"code": "A"}]}, "O", "o"),
        ({"code": "O", "message": "o", "details": []}, "O", "o"),
    ],
)
def test_cause_of_a_failed_pool_is_the_innermost_detail(raw: dict[str, Any], code: str, message: str) -> None:
    read = parse_agent_pool({"name": "p", "properties": {"status": {"provisioningError": raw}}})
    assert read.error is not None
    assert (read.error.code, read.error.message) == (code, message)


@pytest.mark.parametrize(
    ("state", "deleting", "failed", "succeeded"),
    [
        ("Succeeded", False, False, True),
        ("succeeded", False, False, True),
        ("Failed", False, True, False),
        ("Canceled", False, True, False),
        ("Deleting", True, False, False),
        ("Creating", False, False, False),
        ("SomethingNew", False, False, False),
    ],
)
def test_state_of_a_pool_is_a_free_string_of_which_some_are_known(
    state: str, deleting: bool, failed: bool, succeeded: bool
) -> None:
    read = parse_agent_pool({"name": "p", "properties": {"provisioningState": state}})
    assert (read.is_deleting, read.is_failed, read.is_succeeded) == (deleting, failed, succeeded)


PEERS = {
    names.WORKSPACE_LABEL: "w",
    names.NODEPOOL_LABEL: "kaito",
    names.MACHINE_TYPE_LABEL: "gpu",
    names.CREATION_TIMESTAMP_LABEL: "2026-11-21T04-34-24Z",
}


@pytest.mark.parametrize(
    ("labels", "tags", "is_peers"),
    [
        (PEERS, {}, True),
        ({**PEERS, names.RAGENGINE_LABEL: "r"}, {}, True),
        *(({k: v for k, v in PEERS.items() if k != left_out}, {}, False) for left_out in PEERS),
        (PEERS, {names.CLAIM_UID_TAG: "u"}, False),
        ({}, {}, False),
    ],
)
def test_pool_of_the_peer_is_known_by_all_of_its_labels_and_none_of_our_tags(
    labels: dict[str, str], tags: dict[str, str], is_peers: bool
) -> None:
    raw = {"name": "p", "properties": {"nodeLabels": labels, "tags": tags}}
    assert parse_agent_pool(raw).is_peers is is_peers


GROUP = "/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourcegroups/mc_rg_aks_eastus"


@pytest.mark.parametrize(
    ("given", "pool", "group"),
    [
        (provider_id("ws1"), "ws1", GROUP),
        (provider_id("ws1").upper().replace("AZURE:///", "azure:///"), "ws1", GROUP),
        ("", "", ""),
        ("aws:///us-east-1/i-1", "", ""),
        (provider_id("ws1").replace("virtualMachineScaleSets", "virtualMachines"), "", GROUP),
        (provider_id("a-b"), "", GROUP),
        (provider_id("ws1") + "/x", "", GROUP),
        (provider_id("ws1").replace("Microsoft.Compute", "Microsoft.Web"), "", ""),
    ],
)
def test_provider_id_tells_agent_pool_and_resource_group(given: str, pool: str, group: str) -> None:
    assert pool_of_provider_id(given) == pool
    assert resource_group_of_provider_id(given) == group
