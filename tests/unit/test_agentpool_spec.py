"""The agent pool of a claim: its name, its labels, and the body of the PUT."""

from collections.abc import Mapping
from datetime import timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fakes.azure import syntax
from provisioner.apis import names
from provisioner.apis.agentpool import POOL_NAME
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.nodeclaim.agentpool_spec import check, creation_timestamp_label, launch_labels, pool_name, render
from provisioner.placement.market import Refusal
from tests.unit.builders import (
    A100,
    CREATED,
    GPU_TAINT,
    LOCATION,
    NAME,
    UID,
    claim,
    kaito_claim,
    offer_of,
    recorded_claim,
    requirement,
    spec_of,
)

LABELS: Mapping[str, str] = kaito_claim()["metadata"]["labels"]

# What Azure/gpu-provisioner sends for the same claim.
PEERS_BODY = {
    "properties": {
        "count": 1,
        "nodeLabels": {
            "apps": "phi-4",
            "kaito.sh/creation-timestamp": "2026-11-21T04-34-24Z",
            "kaito.sh/machine-type": "gpu",
            "kaito.sh/workspace": "workspace-phi-4-mini",
            "kaito.sh/workspacenamespace": "default",
            "karpenter.sh/nodepool": "kaito",
        },
        "nodeTaints": ["sku=gpu:NoSchedule"],
        "osDiskSizeGB": 87,
        "osSKU": "Ubuntu",
        "osType": "Linux",
        "type": "VirtualMachineScaleSets",
        "vmSize": A100,
    }
}


def properties(claim: NodeClaim) -> dict[str, Any]:
    body = render(claim, spec_of(claim), offer_of(claim))
    assert list(body) == ["properties"]
    found: dict[str, Any] = body["properties"]
    return found


def node_labels(**labels: str) -> dict[str, str]:
    found: dict[str, str] = properties(claim(labels={**LABELS, **labels}))["nodeLabels"]
    return found


def test_body_for_a_claim_of_kaito_is_the_peers_with_mode_and_tags() -> None:
    assert properties(claim()) == PEERS_BODY["properties"] | {
        "mode": "User",
        "tags": {"gpu-provisioner.kaito.sh.nodeclaim": NAME, "gpu-provisioner.kaito.sh.nodeclaim-uid": UID},
    }


# Name


@pytest.mark.parametrize("name", ["ws09f153898", "a", "abcdefghijkl", "a12345678901"])
def test_claim_name_that_aks_takes_is_the_pools_name(name: str) -> None:
    assert pool_name(name) == name


@pytest.mark.parametrize(
    ("name", "hashed"),
    [
        ("guardiandiamond-3-64brgkochc", "gwvhu1mw8rwv"),
        ("abcdefghijklm", "go8e25nxfupv"),
        ("my-gpu", "g0ah7kmwf5r2"),
        ("1node", "g50n3eihizr5"),
        ("node.a", "giop2cspr3sd"),
    ],
)
def test_any_other_claim_name_is_hashed_to_the_same_pool_name_for_ever(name: str, hashed: str) -> None:
    assert pool_name(name) == hashed
    assert pool_name(name, alternative=True) == hashed


@given(st.text(max_size=300), st.booleans())
def test_pool_name_is_always_one_that_aks_takes(name: str, alternative: bool) -> None:
    assert POOL_NAME.fullmatch(pool_name(name, alternative=alternative))


@given(st.from_regex(POOL_NAME, fullmatch=True))
def test_alternative_name_is_another_one(name: str) -> None:
    assert pool_name(name, alternative=True) != pool_name(name)


# Image, disk, size


@pytest.mark.parametrize(
    ("family", "os_sku"),
    [
        ("ubuntu", "Ubuntu"),
        ("azurelinux", "AzureLinux"),
        ("AzureLinux", "AzureLinux"),
        ("windows", "Ubuntu"),
        ("", "Ubuntu"),
    ],
)
def test_image_comes_from_the_annotation_in_any_letter_case(family: str, os_sku: str) -> None:
    assert properties(claim(annotations={names.NODE_IMAGE_FAMILY_ANNOTATION: family}))["osSKU"] == os_sku


def test_image_is_not_taken_from_a_label() -> None:
    asked = claim(labels={**LABELS, names.NODE_IMAGE_FAMILY_ANNOTATION: "azurelinux"})
    assert properties(asked)["osSKU"] == "Ubuntu"


def test_os_disk_is_left_to_azure_where_the_claim_requests_none() -> None:
    assert "osDiskSizeGB" not in properties(claim(storage=None))


@pytest.mark.parametrize(("size", "machine_type"), [(A100, "gpu"), ("Standard_D4s_v5", "cpu")])
def test_machine_type_is_told_by_the_size(size: str, machine_type: str) -> None:
    assert properties(claim(size=size))["nodeLabels"]["kaito.sh/machine-type"] == machine_type


def test_size_is_sent_in_azures_spelling() -> None:
    assert properties(claim(size=A100.lower()))["vmSize"] == A100


# Spot, zones


def asking(*more: dict[str, Any], **changes: Any) -> NodeClaim:
    return claim(requirements=[requirement(names.INSTANCE_TYPE_LABEL, "In", A100), *more], **changes)


def test_spot_pool_costs_at_most_the_on_demand_price_and_goes_when_it_is_evicted() -> None:
    sent = properties(asking(requirement(names.CAPACITY_TYPE_LABEL, "In", "spot")))
    assert (sent["scaleSetPriority"], sent["scaleSetEvictionPolicy"], sent["spotMaxPrice"]) == ("Spot", "Delete", -1)


def test_on_demand_regional_pool_says_nothing_of_spot_or_zones() -> None:
    assert not {"scaleSetPriority", "scaleSetEvictionPolicy", "spotMaxPrice", "availabilityZones"} & set(
        properties(asking())
    )


def test_zones_are_sent_by_number() -> None:
    sent = properties(asking(requirement(names.ZONE_LABEL, "In", "eastus-3", "eastus-1")))
    assert sent["availabilityZones"] == ["1", "3"]


# Labels


def test_label_of_the_claim_wins_over_its_requirement() -> None:
    assert node_labels(**{"karpenter.sh/nodepool": "other"})["karpenter.sh/nodepool"] == "other"


def test_nodepool_is_kaito_where_the_claim_has_none() -> None:
    assert properties(claim(labels={}))["nodeLabels"]["karpenter.sh/nodepool"] == "kaito"


@pytest.mark.parametrize("forced", ["kaito.sh/machine-type", "kaito.sh/creation-timestamp"])
def test_labels_that_mark_the_pool_cannot_be_forged(forced: str) -> None:
    assert node_labels(**{forced: "forged"})[forced] != "forged"


@pytest.mark.parametrize(
    "label",
    [
        "agentpool",
        "accelerator",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/zone",
        "kubernetes.io/os",
        "node-role.kubernetes.io/gpu",
        "feature.node.kubernetes.io/x",
        "scheduling.k8s.io/x",
    ],
)
def test_label_that_aks_refuses_or_sets_itself_comes_on_the_node_later(label: str) -> None:
    assert label not in node_labels(**{label: "x"})
    assert check(claim(labels={label: "x"}), spec_of(claim())) is None


@pytest.mark.parametrize("label", ["team", "kueue.x-k8s.io/x", "mykubernetes.io/x", "karpenter.sh/do-not-sync-taints"])
def test_any_other_label_is_on_the_node_from_the_start(label: str) -> None:
    assert node_labels(**{label: "true"})[label] == "true"


def test_creation_time_is_written_in_utc_as_the_peer_writes_it() -> None:
    elsewhere = CREATED.astimezone(timezone(timedelta(hours=9)))
    assert creation_timestamp_label(elsewhere) == "2026-11-21T04-34-24Z"


def test_body_is_the_same_after_the_launch_has_labelled_the_claim() -> None:
    first = asking(
        requirement(names.CAPACITY_TYPE_LABEL, "In", "spot"),
        requirement(names.ZONE_LABEL, "In", "eastus-1"),
        requirement("team", "In", "vision"),
    )
    offer = offer_of(first)
    launched = asking(
        requirement(names.CAPACITY_TYPE_LABEL, "In", "spot"),
        requirement(names.ZONE_LABEL, "In", "eastus-1"),
        requirement("team", "In", "vision"),
        labels=launch_labels(first, offer, location=LOCATION),
    )
    assert render(launched, spec_of(launched), offer) == render(first, spec_of(first), offer)


def test_launched_claim_shows_what_it_got() -> None:
    assert launch_labels(claim(), offer_of(claim()), location=LOCATION) == {
        **LABELS,
        "node.kubernetes.io/instance-type": A100,
        "karpenter.azure.com/sku-name": A100,
        "karpenter.sh/capacity-type": "on-demand",
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/region": "eastus",
        "topology.kubernetes.io/zone": "0",
        "kaito.sh/kaitonodeclass": "default",
    }


@pytest.mark.parametrize("label", ["topology.kubernetes.io/zone", "kaito.sh/kaitonodeclass", "apps"])
def test_label_of_the_author_wins_over_what_is_known(label: str) -> None:
    asked = claim(labels={label: "mine"})
    assert launch_labels(asked, offer_of(asked), location=LOCATION)[label] == "mine"


@pytest.mark.parametrize("name", ["c" * 64, "of spot"])
def test_name_of_a_class_that_fits_into_no_label_is_not_made_one(name: str) -> None:
    # The API server would refuse all that is written together with it, and so the launch.
    asked = claim(nodeClassRef={"group": "kaito.sh", "kind": "KaitoNodeClass", "name": name})
    assert "kaito.sh/kaitonodeclass" not in launch_labels(asked, offer_of(asked), location=LOCATION)


def test_zone_is_not_told_before_azure_has_chosen_it() -> None:
    asked = asking(requirement(names.ZONE_LABEL, "In", "eastus-3", "eastus-1"))
    assert "topology.kubernetes.io/zone" not in launch_labels(asked, offer_of(asked), location="")


# Taints


@pytest.mark.parametrize(
    ("taint", "sent"),
    [
        (GPU_TAINT, ["sku=gpu:NoSchedule"]),
        ({"key": "a", "effect": "NoExecute"}, ["a=:NoExecute"]),
        ({"key": "x.io/a", "value": "b", "effect": "PreferNoSchedule"}, ["x.io/a=b:PreferNoSchedule"]),
        ({"key": "karpenter.sh/unregistered", "effect": "NoExecute"}, []),
        ({"key": "kubernetes.azure.com/scalesetpriority", "value": "spot", "effect": "NoSchedule"}, []),
    ],
)
def test_taint_is_sent_unless_it_is_set_elsewhere(taint: dict[str, str], sent: list[str]) -> None:
    asked = claim(taints=[taint])
    assert check(asked, spec_of(asked)) is None
    assert properties(asked)["nodeTaints"] == sent


def test_startup_taints_are_not_sent_because_nobody_could_take_them_off() -> None:
    assert properties(claim(taints=[], startupTaints=[GPU_TAINT]))["nodeTaints"] == []


# What AKS would refuse


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"kubernetes.azure.com/mode": "user"}, "AKS keeps this prefix for itself"),
        ({"kubernetes.io/cluster": "a"}, "AKS keeps this prefix for itself"),
        ({"a b": "c"}, "a b=c is no valid label"),
        ({"a": "c d"}, "a=c d is no valid label"),
        ({"a": "x" * 64}, f"a={'x' * 64} is no valid label"),
        ({"a..b/c": "d"}, "a..b/c=d is no valid label"),
        ({"A/c": "d"}, "A/c=d is no valid label"),
    ],
)
def test_label_that_aks_would_refuse_is_refused_with_its_name(labels: dict[str, str], why: str) -> None:
    refusal = check(claim(labels={**LABELS, **labels}), spec_of(claim()))
    assert refusal == Refusal(
        reason="InvalidLabel", message=f"Label {next(iter(labels))}: {why}. Write a new claim without it."
    )


@pytest.mark.parametrize(
    ("taints", "shown", "why"),
    [
        (
            [{"key": "kubernetes.azure.com/a", "effect": "NoSchedule"}],
            "kubernetes.azure.com/a:NoSchedule",
            "AKS keeps this prefix for itself",
        ),
        ([{"key": "a", "value": "b/c", "effect": "NoSchedule"}], "a=b/c:NoSchedule", "key or value is not valid"),
        ([{"key": "x" * 64, "effect": "NoExecute"}], f"{'x' * 64}:NoExecute", "key or value is not valid"),
        (
            [GPU_TAINT, {**GPU_TAINT, "value": "other"}],
            "sku=other:NoSchedule",
            "key and effect occur twice",
        ),
    ],
)
def test_taint_that_aks_would_refuse_is_refused_with_its_name(
    taints: list[dict[str, str]], shown: str, why: str
) -> None:
    asked = claim(taints=taints)
    assert check(asked, spec_of(asked)) == Refusal(
        reason="InvalidTaint", message=f"Taint {shown}: {why}. Write a new claim without it."
    )


def test_key_with_two_effects_is_two_taints() -> None:
    asked = claim(taints=[GPU_TAINT, {**GPU_TAINT, "effect": "NoExecute"}])
    assert check(asked, spec_of(asked)) is None


_PREFIXES = st.sampled_from(
    [
        *("", "/", "a.b/", "a..b/", "-a/", "A/", "x/y/", f"{'a' * 250}.io/"),
        *("kaito.sh/", "karpenter.sh/", "kubernetes.io/", "node.kubernetes.io/", "x.k8s.io/", "kubernetes.azure.com/"),
    ]
)
_WORDS = st.sampled_from(["a", "Z0", "a-b", "agentpool", "hostname", "a" * 63, "a" * 64]) | st.text(
    "aZ0-_. /é\n", max_size=3
)
_KEYS = st.builds(str.__add__, _PREFIXES, _WORDS)


@st.composite
def claims(draw: st.DrawFn) -> NodeClaim:
    effects = st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"])
    taints = st.fixed_dictionaries({"key": _KEYS, "value": _WORDS, "effect": effects})
    return recorded_claim(
        draw(st.sampled_from(["ws1", "a-b", "c" * 253])),
        labels=draw(st.dictionaries(_KEYS, _WORDS, max_size=2)),
        taints=draw(st.lists(taints, max_size=2)),
        storage=draw(st.sampled_from(["1Mi", "30Gi", "2Ti", None])),
        annotations=draw(st.dictionaries(st.just(names.NODE_IMAGE_FAMILY_ANNOTATION), _WORDS)),
    )


@settings(deadline=None, max_examples=60)
@given(asked=claims())
def test_body_of_a_claim_that_passes_the_check_is_one_that_aks_takes(asked: NodeClaim) -> None:
    assume(check(asked, spec_of(asked)) is None)
    sent = properties(asked)
    syntax.check_labels(sent["nodeLabels"])
    syntax.check_taints(sent["nodeTaints"])
    syntax.check_tags(sent["tags"])
    assert 30 <= sent.get("osDiskSizeGB", 30) <= 2048
    assert sent["osSKU"] in ("Ubuntu", "AzureLinux")
