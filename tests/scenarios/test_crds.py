"""What a real API server makes of our custom resources: NodeClaims are checked as Karpenter's own are."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from fakes.aks import CRDS
from fakes.cluster.api import ApiClient, ApiError
from fakes.cluster.interface import ControlPlane
from tests.kube import clear

pytestmark = pytest.mark.real_only("rules in CEL are evaluated there alone")

NODE_CLAIMS = "/apis/karpenter.sh/v1/nodeclaims"
NODE_CLASSES = "/apis/kaito.sh/v1alpha1/kaitonodeclasses"
MERGE = "application/merge-patch+json"
NOW = "2026-01-02T03:04:05Z"

ZONE = "topology.kubernetes.io/zone"
SIZE = "node.kubernetes.io/instance-type"
# Every label that Karpenter calls well known and lets a claim ask for.
WELL_KNOWN = (
    "karpenter.sh/capacity-type",
    "karpenter.sh/nodepool",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "node.kubernetes.io/windows-build",
    "topology.kubernetes.io/region",
    SIZE,
    ZONE,
)


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    control_plane.apply(*CRDS)
    yield control_plane
    asyncio.run(clear(control_plane))


@pytest.fixture(scope="module")
def admin(cluster: ControlPlane) -> ApiClient:
    return cluster.client()


def requirement(key: str, operator: str, *values: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {}), **more}


def taint(key: str | None, effect: str | None, **more: Any) -> dict[str, Any]:
    return {name: value for name, value in {"key": key, "effect": effect, **more}.items() if value is not None}


def claim(name: str, **spec: Any) -> dict[str, Any]:
    """A claim that is valid but for what is given; a field given as None is left out."""
    merged = {
        "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
        "requirements": [requirement("karpenter.sh/capacity-type", "Exists")],
        **spec,
    }
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodeClaim",
        "metadata": {"name": name},
        "spec": {field: value for field, value in merged.items() if value is not None},
    }


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ApiError) as refused:
        call()
    assert refused.value.status == 422
    return str(refused.value)


def try_out(admin: ApiClient, spec: Mapping[str, Any]) -> Any:
    """Have a claim checked and defaulted as on creation, without keeping it."""
    return admin.request("POST", f"{NODE_CLAIMS}?dryRun=All", body=claim("tried", **spec))


def taints(*items: dict[str, Any]) -> dict[str, Any]:
    return {"taints": list(items)}


def requirements(*items: dict[str, Any]) -> dict[str, Any]:
    return {"requirements": list(items)}


def class_ref(**fields: str) -> dict[str, Any]:
    return {"nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default", **fields}}


Specs = list[dict[str, Any]]

# The behaviours that Karpenter checks its own CRD for, in its order; each holds for all specs beside it.
ACCEPTED: dict[str, Specs] = {
    "taints with and without a value": [
        taints(
            taint("a", "NoSchedule", value="b"),
            taint("c", "NoExecute", value="d"),
            taint("e", "PreferNoSchedule", value="f"),
            taint("key-only", "NoExecute"),
        )
    ],
    "one taint key with two effects": [taints(taint("a", "NoSchedule"), taint("a", "NoExecute"))],
    "group of a node class": [class_ref(group="karpenter.test.sh")],
    "every operator": [
        requirements(
            requirement(ZONE, "In", "test"),
            requirement(ZONE, "NotIn"),
            requirement(ZONE, "Exists"),
            requirement(ZONE, "DoesNotExist"),
            requirement(ZONE, "Gt", "1"),
            requirement(ZONE, "Lt", "1"),
            requirement(ZONE, "Gte", "1"),
            requirement(ZONE, "Lte", "0"),
        )
    ],
    "labels in the domains of Kubernetes": [
        requirements(requirement(f"{domain}/test", "In", "test"))
        for domain in ("kubernetes.io", "k8s.io", "node.kubernetes.io", "node-restriction.kubernetes.io", "kops.k8s.io")
    ],
    "labels in subdomains of Kubernetes": [
        requirements(requirement(f"subdomain.{domain}/test", "In", "test")) for domain in ("kubernetes.io", "k8s.io")
    ],
    "well-known labels": [requirements(requirement(label, "In", "test")) for label in WELL_KNOWN],
    "sets that overlap and leave something": [
        requirements(requirement(ZONE, "In", "test", "foo"), requirement(ZONE, "NotIn", "test", "bar"))
    ],
    "no requirements": [requirements()],
    "ninety values without minValues": [
        requirements(requirement(SIZE, "In", *(f"size-{number}" for number in range(90))))
    ],
    "terminationGracePeriod of one unit": [{"terminationGracePeriod": "30s"}],
    "terminationGracePeriod of several units": [{"terminationGracePeriod": "1h30m5s"}],
    "expireAfter of one unit": [{"expireAfter": "30s"}],
    "expireAfter of several units": [{"expireAfter": "1h30m5s"}],
    "expireAfter Never": [{"expireAfter": "Never"}],
}

# Behaviour -> what the refusal says, and the specs that meet it.
REFUSED: dict[str, tuple[str, Specs]] = {
    "taint key of odd characters": ("spec.taints[0].key", [taints(taint("???", "NoSchedule"))]),
    "taint without a key": ("spec.taints[0].key: Required", [taints(taint(None, "NoSchedule"))]),
    "taint value of odd characters": ("spec.taints[0].value", [taints(taint("a", "NoSchedule", value="???"))]),
    "unknown taint effect": ("spec.taints[0].effect: Unsupported", [taints(taint("a", "???"))]),
    "group with a version": ("spec.nodeClassRef.group", [class_ref(group="karpenter.test.sh/v1")]),
    "unknown operator": ("operator: Unsupported", [requirements(requirement(ZONE, "unknown", "test"))]),
    "labels in Karpenter's domain": (
        'label domain "karpenter.sh" is restricted',
        [requirements(requirement(f"{domain}/test", "In", "test")) for domain in ("karpenter.sh", "a.karpenter.sh")],
    ),
    "the host name": (
        'label "kubernetes.io/hostname" is restricted',
        [requirements(requirement("kubernetes.io/hostname", "In", "test"))],
    ),
    "Gt and Lt without exactly one whole number": (
        "spec.requirements: Invalid value",
        [
            requirements(requirement(ZONE, operator, *values))
            for operator in ("Gt", "Lt")
            for values in ((), ("1", "2"), ("a",), ("-1",))
        ],
    ),
    "Gte and Lte without exactly one whole number": (
        "spec.requirements: Invalid value",
        [
            requirements(requirement(ZONE, operator, *values))
            for operator in ("Gte", "Lte")
            for values in ((), ("1", "2"), ("a",), ("-1",))
        ],
    ),
    "negative minValues": ("minValues", [requirements(requirement(SIZE, "In", "size", minValues=-1))]),
    "minValues of zero": ("minValues", [requirements(requirement(SIZE, "In", "size", minValues=0))]),
    "minValues above fifty": ("minValues", [requirements(requirement(SIZE, "Exists", minValues=51))]),
    "minValues above the number of values": (
        "must have at least that many values",
        [requirements(requirement(SIZE, "In", "size", minValues=2))],
    ),
    "more than a hundred requirements": (
        "spec.requirements: Too many: 101",
        [requirements(*(requirement(f"label-{number}", "In", "value") for number in range(101)))],
    ),
    "negative terminationGracePeriod": ("spec.terminationGracePeriod", [{"terminationGracePeriod": "-1s"}]),
    "terminationGracePeriod of an unknown unit": ("spec.terminationGracePeriod", [{"terminationGracePeriod": "1hr"}]),
    "terminationGracePeriod Never": ("spec.terminationGracePeriod", [{"terminationGracePeriod": "Never"}]),
    "terminationGracePeriod that ends well": ("spec.terminationGracePeriod", [{"terminationGracePeriod": "FooNever"}]),
    "negative expireAfter": ("spec.expireAfter", [{"expireAfter": "-1s"}]),
    "expireAfter of an unknown unit": ("spec.expireAfter", [{"expireAfter": "1hr"}]),
    "expireAfter that ends well": ("spec.expireAfter", [{"expireAfter": "FooNever"}]),
}

# What Karpenter's schema says beside that.
REFUSED_TOO: dict[str, tuple[str, Specs]] = {
    "no node class": ("spec.nodeClassRef: Required", [{"nodeClassRef": None}]),
    "requirements left out": ("spec.requirements: Required", [{"requirements": None}]),
    "empty group": ("group may not be empty", [class_ref(group="")]),
    "empty kind": ("kind may not be empty", [class_ref(kind="")]),
    "empty name": ("name may not be empty", [class_ref(name="")]),
    "In without values": ("spec.requirements: Invalid value", [requirements(requirement(ZONE, "In"))]),
    "In with an empty list of values": (
        "requirements with operator 'In' must have a value defined",
        [requirements(requirement(ZONE, "In", values=[]))],
    ),
    "label key that is too long": ("Too long", [requirements(requirement("a" * 317, "Exists"))]),
    "label key of odd characters": ("requirements[0].key", [requirements(requirement("a b", "Exists"))]),
    "quantity that is none": ("spec.resources.requests", [{"resources": {"requests": {"cpu": "many"}}}]),
    "startup taint without an effect": ("startupTaints[0].effect: Required", [{"startupTaints": [taint("a", None)]}]),
}


def test_the_behaviours_are_as_many_as_karpenter_checks() -> None:
    assert len(ACCEPTED) + len(REFUSED) == 37


@pytest.mark.parametrize("specs", [pytest.param(specs, id=name) for name, specs in ACCEPTED.items()])
def test_accepted(admin: ApiClient, specs: Specs) -> None:
    for spec in specs:
        kept = try_out(admin, spec)["spec"]
        assert {field: kept[field] for field in spec} == spec


@pytest.mark.parametrize(
    ("says", "specs"), [pytest.param(*case, id=name) for name, case in {**REFUSED, **REFUSED_TOO}.items()]
)
def test_refused(admin: ApiClient, says: str, specs: Specs) -> None:
    for spec in specs:
        assert says in refusal(partial(try_out, admin, spec))


def test_claim_without_an_expiry_never_expires(admin: ApiClient) -> None:
    assert try_out(admin, {})["spec"]["expireAfter"] == "Never"


def test_values_longer_than_a_label_are_taken(admin: ApiClient) -> None:
    spec = requirements(requirement(ZONE, "In", "a" * 64, "under score", "zone-1"))
    assert try_out(admin, spec)["spec"]["requirements"] == spec["requirements"]


def test_fields_of_other_versions_are_dropped(admin: ApiClient) -> None:
    assert "kubelet" not in try_out(admin, {"kubelet": {"maxPods": 10}})["spec"]


def test_spec_cannot_be_changed_not_even_to_an_equal_amount(admin: ApiClient) -> None:
    admin.request("POST", NODE_CLAIMS, body=claim("fixed", resources={"requests": {"memory": "50000"}}))

    def patch(spec: Mapping[str, Any]) -> Any:
        return admin.request("PATCH", f"{NODE_CLAIMS}/fixed", body={"spec": spec}, content_type=MERGE)

    assert "spec is immutable" in refusal(lambda: patch({"terminationGracePeriod": "1m"}))
    assert "spec is immutable" in refusal(lambda: patch({"resources": {"requests": {"memory": "50k"}}}))
    assert patch({"resources": {"requests": {"memory": "50000"}}})["metadata"]["generation"] == 1
    labelled = admin.request(
        "PATCH", f"{NODE_CLAIMS}/fixed", body={"metadata": {"labels": {"a": "b"}}}, content_type=MERGE
    )
    assert labelled["metadata"]["labels"] == {"a": "b"}


def condition(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "status": "True", "reason": "", "message": "", "lastTransitionTime": NOW, **more}


STATUS = {
    "nodeName": "node-1",
    "providerID": "azure:///subscriptions/s/vm",
    "imageID": "image-1",
    "capacity": {"nvidia.com/gpu": 1, "memory": "50Gi"},
    "allocatable": {"nvidia.com/gpu": "1"},
    "conditions": [condition("Launched", observedGeneration=1), condition("Ready", reason="A,b:c_1")],
    "lastPodEventTime": NOW,
}


def patch_status(admin: ApiClient, path: str, status: Mapping[str, Any]) -> Any:
    return admin.request("PATCH", f"{path}/status", body={"status": status}, content_type=MERGE)


def test_status_is_written_by_its_own_request_only(admin: ApiClient) -> None:
    created = admin.request("POST", NODE_CLAIMS, body={**claim("reporting"), "status": STATUS})
    assert "status" not in created
    path = f"{NODE_CLAIMS}/reporting"
    written = patch_status(admin, path, STATUS)
    assert written["status"] == STATUS
    assert written["metadata"]["generation"] == 1
    unchanged = admin.request("PATCH", path, body={"status": {"nodeName": "node-2"}}, content_type=MERGE)
    assert unchanged["status"]["nodeName"] == "node-1"


@pytest.mark.parametrize(
    ("says", "conditions"),
    [
        pytest.param("Duplicate value", [condition("Ready"), condition("Ready")], id="one type twice"),
        pytest.param("lastTransitionTime: Required", [{"type": "Ready", "status": "True"}], id="no time"),
        pytest.param("status: Unsupported", [condition("Ready", status="Maybe")], id="odd status"),
        pytest.param("reason", [condition("Ready", reason="two words")], id="odd reason"),
        pytest.param("Too long", [condition("Ready", message="m" * 32769)], id="long message"),
        pytest.param("observedGeneration", [condition("Ready", observedGeneration=-1)], id="negative generation"),
    ],
)
def test_odd_conditions_are_refused(admin: ApiClient, says: str, conditions: list[dict[str, Any]]) -> None:
    name = "odd-conditions"
    admin.request("POST", NODE_CLAIMS, body=claim(name))
    try:
        assert says in refusal(lambda: patch_status(admin, f"{NODE_CLAIMS}/{name}", {"conditions": conditions}))
    finally:
        admin.request("DELETE", f"{NODE_CLAIMS}/{name}")


def test_owners_of_conditions_do_not_overwrite_each_other(admin: ApiClient) -> None:
    admin.request("POST", NODE_CLAIMS, body=claim("shared"))
    for owner in ("Launched", "Drifted"):
        body = {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "status": {"conditions": [condition(owner)]}}
        merged = admin.request(
            "PATCH",
            f"{NODE_CLAIMS}/shared/status?fieldManager={owner.lower()}",
            body=body,
            content_type="application/apply-patch+yaml",
        )
    assert {entry["type"] for entry in merged["status"]["conditions"]} == {"Launched", "Drifted"}


def columns(cluster: ControlPlane, *arguments: str) -> list[list[str]]:
    return [line.split() for line in cluster.run_kubectl("get", *arguments).splitlines()]


def test_columns_are_karpenters(cluster: ControlPlane, admin: ApiClient) -> None:
    created = claim("shown")
    created["metadata"]["labels"] = {
        SIZE: "Standard_NC24ads_A100_v4",
        "karpenter.sh/capacity-type": "spot",
        ZONE: "zone-1",
        "karpenter.sh/nodepool": "pool",
    }
    admin.request("POST", NODE_CLAIMS, body=created)
    patch_status(admin, f"{NODE_CLAIMS}/shown", STATUS)
    short = columns(cluster, "nodeclaims", "shown")
    assert short[0] == ["NAME", "TYPE", "CAPACITY", "ZONE", "NODE", "READY", "AGE"]
    assert short[1][:-1] == ["shown", "Standard_NC24ads_A100_v4", "spot", "zone-1", "node-1", "True"]
    wide = columns(cluster, "nodeclaims", "shown", "--output=wide")
    assert wide[0][7:] == ["IMAGEID", "ID", "NODEPOOL", "NODECLASS", "DRIFTED"]
    assert wide[1][7:] == ["image-1", "azure:///subscriptions/s/vm", "pool", "default"]


def test_claims_are_listed_in_karpenters_category_and_have_no_short_name(cluster: ControlPlane) -> None:
    found = cluster.run_kubectl("api-resources", "--categories=karpenter", "--no-headers")
    assert found.split() == ["nodeclaims", "karpenter.sh/v1", "false", "NodeClaim"]


def test_both_resources_are_established_and_their_names_accepted(admin: ApiClient) -> None:
    for name in ("nodeclaims.karpenter.sh", "kaitonodeclasses.kaito.sh"):
        crd = admin.request("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
        conditions = {entry["type"]: entry["status"] for entry in crd["status"]["conditions"]}
        assert conditions["Established"] == conditions["NamesAccepted"] == "True"
        # Anything the API server finds odd in the schema, such as an untyped field, stands here.
        assert "NonStructuralSchema" not in conditions
        assert crd["spec"]["scope"] == "Cluster"


def test_node_class_needs_no_spec_and_reports_by_conditions(cluster: ControlPlane, admin: ApiClient) -> None:
    kind = {"apiVersion": "kaito.sh/v1alpha1", "kind": "KaitoNodeClass"}
    admin.request("POST", NODE_CLASSES, body={**kind, "metadata": {"name": "plain"}})
    admin.request("POST", NODE_CLASSES, body={**kind, "metadata": {"name": "empty"}, "spec": {}})
    ready = condition("Ready", reason="Valid", observedGeneration=1)
    written = patch_status(admin, f"{NODE_CLASSES}/empty", {"conditions": [ready]})
    assert written["status"] == {"conditions": [ready]}
    shown = columns(cluster, "kaitonodeclasses", "empty")
    assert shown[0] == ["NAME", "READY", "AGE"]
    assert shown[1][:2] == ["empty", "True"]
    assert "reason" in refusal(
        lambda: patch_status(admin, f"{NODE_CLASSES}/empty", {"conditions": [condition("Ready")]})
    )


def test_every_field_is_explained(admin: ApiClient) -> None:
    """`kubectl explain` has a text for each field, down to the leaves."""

    def undescribed(schema: Mapping[str, Any], path: str) -> list[str]:
        found = []
        for name, field in schema.get("properties", {}).items():
            inner = field.get("items", field)
            if "description" not in field and (path, name) != ("", "metadata"):
                found.append(f"{path}.{name}")
            found += undescribed(inner, f"{path}.{name}")
        return found

    for name in ("nodeclaims.karpenter.sh", "kaitonodeclasses.kaito.sh"):
        crd = admin.request("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
        for version in crd["spec"]["versions"]:
            assert undescribed(version["schema"]["openAPIV3Schema"], "") == []
