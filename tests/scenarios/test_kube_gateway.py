"""Gateway, watch and event recorder against a real API server, with the rights that the chart grants and no more."""

import asyncio
import contextlib
import itertools
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml

from fakes.cluster.api import ApiClient
from fakes.cluster.interface import ControlPlane
from provisioner.apis import names
from provisioner.apis.node import parse_node
from provisioner.kube import gateway as gateway_module
from provisioner.kube.errors import Conflict, Forbidden, Gone, KubeError, Rejected, Unavailable
from provisioner.kube.events import EventRecorder, ObjectRef
from provisioner.kube.gateway import CLAIMS, NODE_CLASSES, NODES, KubeGateway
from provisioner.kube.metrics import Registry
from provisioner.kube.store import Store
from provisioner.kube.watch import Watched as WatchedKind
from provisioner.kube.watch import run_watch
from provisioner.nodeclaim.evictions import Evictions
from provisioner.nodeclaim.loads import Loads
from provisioner.nodeclaim.node_metrics import NodeMetrics
from provisioner.nodeclaim.view import Eviction
from tests.kube import clear, eventually, uninstall

CRDS = Path(__file__).parents[2] / "crds"
CLAIM_CRD = CRDS / "karpenter.sh_nodeclaims.yaml"
NODE_CLASS_CRD = CRDS / "kaito.sh_kaitonodeclasses.yaml"
DEADLINE = 30.0
RBAC = "/apis/rbac.authorization.k8s.io/v1"
# All that gateway, watch and recorder need. Discovery is everybody's (system:discovery).
CLUSTER_RULES = [
    {
        "apiGroups": ["karpenter.sh"],
        "resources": ["nodeclaims"],
        "verbs": ["get", "list", "watch", "patch", "delete"],
    },
    {"apiGroups": ["karpenter.sh"], "resources": ["nodeclaims/status"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "delete"]},
    {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get"]},
    {"apiGroups": ["storage.k8s.io"], "resources": ["volumeattachments"], "verbs": ["list"]},
    {"apiGroups": ["kaito.sh"], "resources": ["kaitonodeclasses"], "verbs": ["list", "watch"]},
    {"apiGroups": ["kaito.sh"], "resources": ["kaitonodeclasses/status"], "verbs": ["patch"]},
    # kopf: to see kinds come and go.
    {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["list", "watch"]},
]
EVENT_RULES = [{"apiGroups": [""], "resources": ["events"], "verbs": ["get", "create", "patch"]}]

DEFAULT = "/api/v1/namespaces/default"
PODS = f"{DEFAULT}/pods"
VOLUME_CLAIMS = f"{DEFAULT}/persistentvolumeclaims"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"

_numbers = itertools.count()


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    control_plane.apply(CLAIM_CRD, NODE_CLASS_CRD)
    grant(control_plane)
    yield control_plane
    revoke(control_plane)
    asyncio.run(clear(control_plane))


@pytest.fixture
def admin(cluster: ControlPlane) -> ApiClient:
    return cluster.client()


@pytest.fixture(autouse=True)
def as_the_provisioner(cluster: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig = cluster.kubeconfig_for("default", service_account="gpu-provisioner")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))


@pytest.fixture
async def gateway() -> AsyncIterator[KubeGateway]:
    async with KubeGateway() as gateway:
        yield gateway


def grant(cluster: ControlPlane) -> None:
    admin, named = cluster.client(), {"metadata": {"name": "gpu-provisioner"}}
    subject = {"kind": "ServiceAccount", "name": "gpu-provisioner", "namespace": "default"}
    for account in ("gpu-provisioner", "nobody"):
        admin.request("POST", "/api/v1/namespaces/default/serviceaccounts", body={"metadata": {"name": account}})
    admin.request("POST", f"{RBAC}/clusterroles", body={**named, "rules": CLUSTER_RULES})
    admin.request("POST", f"{RBAC}/namespaces/default/roles", body={**named, "rules": EVENT_RULES})
    for path, kind in (("clusterrolebindings", "ClusterRole"), ("namespaces/default/rolebindings", "Role")):
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "gpu-provisioner"}
        admin.request("POST", f"{RBAC}/{path}", body={**named, "roleRef": role, "subjects": [subject]})


def revoke(cluster: ControlPlane) -> None:
    admin = cluster.client()
    for place in ("clusterrolebindings", "clusterroles", "namespaces/default/rolebindings", "namespaces/default/roles"):
        admin.request("DELETE", f"{RBAC}/{place}/gpu-provisioner")
    for account in ("gpu-provisioner", "nobody"):
        admin.request("DELETE", f"/api/v1/namespaces/default/serviceaccounts/{account}")


def new_name() -> str:
    return f"w{next(_numbers)}"


def create_claim(admin: ApiClient, name: str = "", *, finalizers: tuple[str, ...] = ()) -> dict[str, Any]:
    claim = {
        "apiVersion": names.NODECLAIM_API_VERSION,
        "kind": names.NODECLAIM_KIND,
        "metadata": {"name": name or new_name(), "finalizers": list(finalizers)},
        "spec": {
            "nodeClassRef": {"group": names.KAITO_GROUP, "kind": names.NODECLASS_KIND, "name": "default"},
            "requirements": [{"key": names.INSTANCE_TYPE_LABEL, "operator": "Exists"}],
        },
    }
    created: dict[str, Any] = admin.request("POST", CLAIMS, body=claim)
    return created


def create_node(admin: ApiClient) -> dict[str, Any]:
    created: dict[str, Any] = admin.request("POST", NODES, body={"metadata": {"name": new_name()}})
    return created


def name_of(raw: dict[str, Any]) -> str:
    name: str = raw["metadata"]["name"]
    return name


def version_of(raw: dict[str, Any]) -> str:
    version: str = raw["metadata"]["resourceVersion"]
    return version


class Watched:
    """What a watch has told: into a store, and as it came."""

    def __init__(self) -> None:
        self.store = Store()
        self.events: list[tuple[str, str, str]] = []
        self.ready = asyncio.Event()
        self._told = asyncio.Event()
        self.kinds = (
            WatchedKind(group="karpenter.sh", version="v1", plural="nodeclaims", handler=self.on_claim),
            WatchedKind(group="", version="v1", plural="nodes", handler=self.on_node),
            WatchedKind(
                group="kaito.sh",
                version="v1alpha1",
                plural="kaitonodeclasses",
                handler=self._note("KaitoNodeClass"),
            ),
        )

    def on_claim(self, event: str, raw: dict[str, Any]) -> None:
        self._note("NodeClaim")(event, raw)
        if event == "DELETED":
            self.store.remove_claim(name_of(raw), uid=raw["metadata"]["uid"])
        else:
            self.store.put_claim(raw)

    def on_node(self, event: str, raw: dict[str, Any]) -> None:
        self._note("Node")(event, raw)
        if event == "DELETED":
            self.store.remove_node(name_of(raw), uid=raw["metadata"]["uid"])
        else:
            self.store.put_node(raw)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await self._told.wait()
                self._told.clear()

    def _note(self, kind: str) -> Callable[[str, dict[str, Any]], None]:
        def note(event: str, raw: dict[str, Any]) -> None:
            self.events.append((kind, event, name_of(raw)))
            self._told.set()

        return note


@asynccontextmanager
async def watching(*, anew: bool = False) -> AsyncIterator[Watched]:
    """Watch; `anew`: as the controller does, which starts a watch anew that has died."""
    watched, stop = Watched(), asyncio.Event()

    async def watch() -> None:
        while not stop.is_set():
            with contextlib.suppress(*([Exception] if anew else [])):
                await run_watch(watched.kinds, stop=stop, ready=watched.ready)

    task = asyncio.create_task(watch())
    try:
        yield watched
        assert not task.done(), "the watch has ended by itself"
        stop.set()
        await asyncio.wait_for(task, DEADLINE)
    finally:
        task.cancel()


# Gateway


async def test_patch_on_an_old_version_is_a_conflict(gateway: KubeGateway, admin: ApiClient) -> None:
    claim = create_claim(admin)
    name, patch = name_of(claim), {"metadata": {"annotations": {names.AGENT_POOL_ANNOTATION: "w1"}}}
    patched = await gateway.patch_claim(name, patch, resource_version=version_of(claim))
    assert patched["metadata"]["annotations"] == {names.AGENT_POOL_ANNOTATION: "w1"}
    assert int(version_of(patched)) > int(version_of(claim))
    with pytest.raises(Conflict, match="modified"):
        await gateway.patch_claim(name, {"metadata": {"labels": {"a": "b"}}}, resource_version=version_of(claim))
    with pytest.raises(Conflict):
        await gateway.patch_claim_status(name, {"status": {"nodeName": "n"}}, resource_version=version_of(claim))
    assert await gateway.get_claim(name) == patched


async def test_status_patch_changes_the_status_alone(gateway: KubeGateway, admin: ApiClient) -> None:
    claim = create_claim(admin)
    patch = {"metadata": {"labels": {"a": "b"}}, "status": {"nodeName": "n1"}}
    patched = await gateway.patch_claim_status(name_of(claim), patch, resource_version=version_of(claim))
    assert patched["status"]["nodeName"] == "n1"
    assert "labels" not in patched["metadata"]
    assert patched["metadata"]["generation"] == claim["metadata"]["generation"]


async def test_patch_of_what_is_gone_and_of_what_may_not_change(gateway: KubeGateway, admin: ApiClient) -> None:
    with pytest.raises(Gone):
        await gateway.patch_claim("nobody", {}, resource_version="1")
    claim = create_claim(admin)
    with pytest.raises(Rejected, match="immutable"):
        await gateway.patch_claim(name_of(claim), {"spec": {"expireAfter": "1h"}}, resource_version=version_of(claim))


async def test_deletion_is_of_the_object_with_that_uid(gateway: KubeGateway, admin: ApiClient) -> None:
    claim, node = create_claim(admin), create_node(admin)
    await gateway.delete_claim(name_of(claim), uid="of-an-earlier-one")
    await gateway.delete_node(name_of(node), uid="of-an-earlier-one")
    assert await gateway.get_claim(name_of(claim)) == claim
    assert await gateway.get_node(name_of(node)) is not None
    await gateway.delete_claim(name_of(claim), uid=claim["metadata"]["uid"])
    await gateway.delete_node(name_of(node), uid=node["metadata"]["uid"])
    assert await gateway.get_claim(name_of(claim)) is None
    assert await gateway.get_node(name_of(node)) is None
    await gateway.delete_claim(name_of(claim), uid=claim["metadata"]["uid"])


async def test_claim_waits_for_our_finalizer(gateway: KubeGateway, admin: ApiClient) -> None:
    claim = create_claim(admin, finalizers=(names.TERMINATION_FINALIZER,))
    await gateway.delete_claim(name_of(claim), uid=claim["metadata"]["uid"])
    deleting = await gateway.get_claim(name_of(claim))
    assert deleting is not None
    assert "deletionTimestamp" in deleting["metadata"]
    patch = {"metadata": {"finalizers": None}}
    last = await gateway.patch_claim(name_of(claim), patch, resource_version=version_of(deleting))
    assert "finalizers" not in last["metadata"]
    assert await gateway.get_claim(name_of(claim)) is None


async def test_node_patch_replaces_taints_and_is_locked(gateway: KubeGateway, admin: ApiClient) -> None:
    made = create_node(admin)
    patch = {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    patched = None
    while patched is None:
        # The controller manager writes to a new Node as well.
        node = await gateway.get_node(name_of(made))
        assert node is not None
        with contextlib.suppress(Conflict):
            patched = await gateway.patch_node(name_of(made), patch, resource_version=version_of(node))
    assert patched["spec"]["taints"] == [{"key": "a", "effect": "NoSchedule"}]
    with pytest.raises(Conflict):
        await gateway.patch_node(name_of(made), {"spec": {"taints": []}}, resource_version=version_of(made))


async def test_node_is_labelled_whatever_else_is_written_to_it_but_not_one_made_anew(
    gateway: KubeGateway, admin: ApiClient
) -> None:
    made = create_node(admin)
    name, uid = name_of(made), made["metadata"]["uid"]
    admin.request(
        "PATCH",
        f"{NODES}/{name}",
        body={"metadata": {"annotations": {"other": "writer"}}},
        content_type="application/merge-patch+json",
    )
    patched = await gateway.patch_node_metadata(name, {"metadata": {"labels": {"a": "b"}}}, uid=uid)
    assert patched["metadata"]["labels"]["a"] == "b"
    assert patched["metadata"]["annotations"]["other"] == "writer"
    with pytest.raises(Conflict):
        await gateway.patch_node_metadata(name, {"metadata": {"labels": {"a": "c"}}}, uid="another")
    with pytest.raises(Rejected):
        await gateway.patch_node_metadata(name, {"metadata": {"labels": {"a": "not a label!"}}}, uid=uid)
    with pytest.raises(Gone):
        await gateway.patch_node_metadata(new_name(), {"metadata": {"labels": {"a": "b"}}}, uid=uid)


async def test_node_class_status_is_patched(gateway: KubeGateway, admin: ApiClient) -> None:
    made = admin.request(
        "POST",
        NODE_CLASSES,
        body={"apiVersion": "kaito.sh/v1alpha1", "kind": names.NODECLASS_KIND, "metadata": {"name": new_name()}},
    )
    assert name_of(made) in map(name_of, await gateway.list_node_classes())
    with pytest.raises(Conflict):
        await gateway.patch_node_class_status(name_of(made), {"status": {"conditions": []}}, resource_version="1")
    await gateway.patch_node_class_status(
        name_of(made), {"status": {"conditions": []}}, resource_version=version_of(made)
    )


async def test_list_in_pages_is_one_state_with_a_version(
    gateway: KubeGateway, admin: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {name_of(create_claim(admin)) for _ in range(5)}
    monkeypatch.setattr(gateway_module, "_PAGE", 2)
    claims, version = await gateway.list_claims()
    assert made <= set(map(name_of, claims))
    assert len(claims) == len(admin.request("GET", CLAIMS)["items"])
    assert int(version) >= max(int(version_of(claim)) for claim in claims)


@pytest.mark.real_only("rights are looked at there alone")
async def test_missing_right_is_named(cluster: ControlPlane, admin: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = create_claim(admin)
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig_for("default", service_account="nobody")))
    async with KubeGateway() as gateway:
        with pytest.raises(Forbidden, match=r"cannot list resource .nodes."):
            await gateway.list_nodes()
        with pytest.raises(Forbidden, match=r"cannot patch resource .nodeclaims/status. in API group .karpenter.sh."):
            await gateway.patch_claim_status(name_of(claim), {}, resource_version=version_of(claim))


# Pods and volumes


@pytest.fixture
def node(admin: ApiClient) -> Iterator[str]:
    """A Node without a kubelet: what is deleted there with grace stays, and says since when."""
    name = name_of(create_node(admin))
    yield name
    now = {"gracePeriodSeconds": 0}
    for collection, options in ((PODS, now), (BUDGETS, None), (VOLUME_CLAIMS, None), (ATTACHMENTS, None)):
        for item in admin.request("GET", collection)["items"]:
            admin.request("DELETE", f"{collection}/{name_of(item)}", body=options)


def create_pod(admin: ApiClient, node: str, *, app: str = "guarded") -> dict[str, Any]:
    """Make a pod that runs on the Node, as its kubelet would say."""
    spec = {
        "nodeName": node,
        "automountServiceAccountToken": False,
        "containers": [{"name": "main", "image": "busybox:1"}],
        "tolerations": [{"operator": "Exists"}],
    }
    body = {"metadata": {"name": new_name(), "labels": {"app": app}}, "spec": spec}
    made = admin.request("POST", PODS, body=body)
    ready = {"type": "Ready", "status": "True"}
    pod: dict[str, Any] = admin.request(
        "PATCH",
        f"{PODS}/{name_of(made)}/status",
        body={"status": {"phase": "Running", "conditions": [ready]}},
        content_type="application/merge-patch+json",
    )
    return pod


def create_budget(admin: ApiClient) -> str:
    """Make a budget that allows nothing, and wait until it has counted."""
    spec = {"selector": {"matchLabels": {"app": "guarded"}}, "minAvailable": 1}
    name = name_of(admin.request("POST", BUDGETS, body={"metadata": {"name": new_name()}, "spec": spec}))
    deadline = time.monotonic() + DEADLINE
    while (admin.request("GET", f"{BUDGETS}/{name}").get("status") or {}).get("currentHealthy") != 1:
        assert time.monotonic() < deadline, "the budget has not counted"
        time.sleep(0.05)
    return name


def uid_of(raw: dict[str, Any]) -> str:
    uid: str = raw["metadata"]["uid"]
    return uid


async def test_pods_of_a_node_are_those_that_are_bound_to_it(gateway: KubeGateway, admin: ApiClient, node: str) -> None:
    here, elsewhere = create_pod(admin, node), create_pod(admin, name_of(create_node(admin)))
    assert [uid_of(raw) for raw in await gateway.list_pods(node=node)] == [uid_of(here)]
    assert uid_of(elsewhere) not in map(uid_of, await gateway.list_pods(node=node))
    assert await gateway.list_pods(node="nobody") == []


async def test_pod_is_evicted_where_no_budget_forbids(gateway: KubeGateway, admin: ApiClient, node: str) -> None:
    pod = create_pod(admin, node)
    with pytest.raises(Conflict):
        await gateway.evict_pod("default", name_of(pod), uid="of-an-earlier-one")
    assert "deletionTimestamp" not in admin.request("GET", f"{PODS}/{name_of(pod)}")["metadata"]
    await gateway.evict_pod("default", name_of(pod), uid=uid_of(pod))
    assert "deletionTimestamp" in admin.request("GET", f"{PODS}/{name_of(pod)}")["metadata"]
    with pytest.raises(Gone):
        await gateway.evict_pod("default", "nobody", uid=uid_of(pod))


async def test_budget_forbids_an_eviction_but_no_deletion(gateway: KubeGateway, admin: ApiClient, node: str) -> None:
    pod, budget = create_pod(admin, node), create_budget(admin)
    with pytest.raises(Unavailable, match=f"disruption budget {budget} needs 1 healthy pods") as caught:
        await gateway.evict_pod("default", name_of(pod), uid=uid_of(pod))
    assert caught.value.status == 429
    with pytest.raises(Conflict):
        await gateway.delete_pod("default", name_of(pod), uid="of-an-earlier-one", grace_seconds=5)
    await gateway.delete_pod("default", name_of(pod), uid=uid_of(pod), grace_seconds=600)
    # A shorter grace brings an end forward that was already given.
    await gateway.delete_pod("default", name_of(pod), uid=uid_of(pod), grace_seconds=5)
    metadata = admin.request("GET", f"{PODS}/{name_of(pod)}")["metadata"]
    assert metadata["deletionGracePeriodSeconds"] == 5
    with pytest.raises(Gone):
        await gateway.delete_pod("default", "nobody", uid=uid_of(pod), grace_seconds=5)


async def test_two_budgets_of_one_pod_forbid_every_eviction(gateway: KubeGateway, admin: ApiClient, node: str) -> None:
    pod = create_pod(admin, node)
    for _ in range(2):
        create_budget(admin)
    with pytest.raises(Unavailable, match="more than one PodDisruptionBudget") as caught:
        await gateway.evict_pod("default", name_of(pod), uid=uid_of(pod))
    assert caught.value.status == 500


async def test_pods_leave_a_node_by_eviction_or_by_force_and_events_tell(
    gateway: KubeGateway, admin: ApiClient, node: str
) -> None:
    guarded, free, metrics = create_pod(admin, node), create_pod(admin, node, app="free"), Registry()
    budget = create_budget(admin)
    loads = Loads(gateway, now=lambda: datetime.now(UTC))
    seen = parse_node(admin.request("GET", f"{NODES}/{node}"))

    async def reasons() -> set[tuple[str, str]]:
        events = (await asyncio.to_thread(admin.request, "GET", f"{DEFAULT}/events"))["items"]
        return {(str(event.get("reason")), event["involvedObject"].get("uid", "")) for event in events}

    async with EventRecorder(gateway, clock=lambda: datetime.now(UTC), instance="pod-0") as recorder:
        evictions = Evictions(
            gateway,
            recorder=recorder,
            rng=random.Random(1),  # noqa: S311 -- for jitter
            metrics=metrics,
            node_metrics=NodeMetrics(metrics, nodes=tuple, now=lambda: datetime.now(UTC)),
        )
        running = asyncio.create_task(evictions.run())
        load = (await loads.read([seen]))[node]
        evictions.want(seen, [Eviction(pod=pod) for pod in load.pods], reason="Expired")
        expected = {("FailedDraining", seen.uid), ("Evicted", uid_of(free))}
        await eventually(reasons, until=expected.issubset)
        assert budget in evictions.blocked(node)[uid_of(guarded)]
        load = (await loads.read([seen]))[node]
        assert {pod.uid: pod.deleted is not None for pod in load.pods} == {uid_of(guarded): False, uid_of(free): True}
        left = [Eviction(pod=pod, grace_seconds=3) for pod in load.pods if pod.uid == uid_of(guarded)]
        evictions.want(seen, left, reason="Expired")
        await eventually(reasons, until=lambda told: ("Disrupted", uid_of(guarded)) in told)
        running.cancel()
    metadata = admin.request("GET", f"{PODS}/{name_of(guarded)}")["metadata"]
    assert metadata["deletionGracePeriodSeconds"] in (2, 3)
    assert ("Evicted", uid_of(guarded)) not in await reasons()
    assert 'karpenter_pods_drained_total{reason="Expired"} 1' in metrics.expose()


async def test_attachments_and_the_volume_of_a_claim_are_read(
    gateway: KubeGateway, admin: ApiClient, node: str
) -> None:
    source = {"persistentVolumeName": "pv-1"}
    spec = {"attacher": "disk.csi.azure.com", "nodeName": node, "source": source}
    made = admin.request("POST", ATTACHMENTS, body={"metadata": {"name": new_name()}, "spec": spec})
    [found] = [raw for raw in await gateway.list_volume_attachments() if name_of(raw) == name_of(made)]
    assert (found["spec"]["nodeName"], found["spec"]["source"]) == (node, source)
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "",
        "volumeName": "pv-1",
    }
    claim = admin.request("POST", VOLUME_CLAIMS, body={"metadata": {"name": new_name()}, "spec": spec})
    read = await gateway.get_volume_claim("default", name_of(claim))
    assert read is not None
    assert read["spec"]["volumeName"] == "pv-1"
    assert await gateway.get_volume_claim("default", "nobody") is None


# Events


async def test_events_are_written_and_counted_up_across_restarts(gateway: KubeGateway, admin: ApiClient) -> None:
    claim = create_claim(admin)
    about = ObjectRef(
        kind=names.NODECLAIM_KIND,
        name=name_of(claim),
        uid=claim["metadata"]["uid"],
        api_version=names.NODECLAIM_API_VERSION,
    )
    for _ in range(2):
        async with EventRecorder(gateway, clock=lambda: datetime.now(UTC), instance="pod-0") as recorder:
            recorder.record(about, type="Warning", reason="QuotaExceeded", message="0 of 24 cores are left")
    events = admin.request("GET", f"/api/v1/namespaces/default/events?fieldSelector=involvedObject.uid={about.uid}")
    [event] = events["items"]
    assert (event["reason"], event["type"], event["count"]) == ("QuotaExceeded", "Warning", 2)
    assert event["source"] == {"component": "gpu-provisioner"}


async def test_burst_of_events_is_complete_in_order_and_counted(gateway: KubeGateway, admin: ApiClient) -> None:
    objects = [
        ObjectRef(kind=names.NODECLAIM_KIND, name=name, uid=f"uid-of-{name}", api_version=names.NODECLAIM_API_VERSION)
        for name in (new_name() for _ in range(40))
    ]
    for _ in range(2):
        async with EventRecorder(gateway, clock=lambda: datetime.now(UTC), instance="pod-0") as recorder:
            for message in ("first", "second", "third"):
                for about in objects:
                    recorder.record(about, type="Normal", reason="Progress", message=message)
            await recorder.close(timeout=DEADLINE)
    found: dict[str, list[dict[str, Any]]] = {about.uid: [] for about in objects}
    for event in admin.request("GET", "/api/v1/namespaces/default/events")["items"]:
        if event["involvedObject"].get("uid") in found:
            found[event["involvedObject"]["uid"]].append(event)
    for events in found.values():
        # Each was counted up once, and a resourceVersion counts the writes to all objects.
        by_last_write = sorted(events, key=lambda event: int(version_of(event)))
        assert [event["message"] for event in by_last_write] == ["first", "second", "third"]
        assert [event["count"] for event in events] == [2, 2, 2]


# Watch


async def test_watch_tells_what_is_there_and_what_changes(admin: ApiClient, gateway: KubeGateway) -> None:
    before = create_claim(admin)
    async with watching() as watched:
        await watched.until(lambda: watched.store.claim(name_of(before)) is not None)
        claim, node = create_claim(admin), create_node(admin)
        await watched.until(lambda: watched.store.claim(name_of(claim)) is not None)
        await gateway.patch_claim_status(
            name_of(claim), {"status": {"nodeName": "n"}}, resource_version=version_of(claim)
        )
        await gateway.delete_node(name_of(node), uid=node["metadata"]["uid"])
        await watched.until(lambda: ("NodeClaim", "MODIFIED", name_of(claim)) in watched.events)
        await watched.until(lambda: ("Node", "DELETED", name_of(node)) in watched.events)
        seen = watched.store.claim(name_of(claim))
        assert seen is not None
        assert seen.node_name == "n"
        assert watched.store.node(name_of(node)) is None
        assert ("NodeClaim", "ADDED", name_of(before)) in watched.events
    assert await gateway.get_claim(name_of(before)) == before, "kopf writes nothing of its own"


async def test_watch_leaves_our_finalizer_alone(admin: ApiClient, gateway: KubeGateway) -> None:
    claim = create_claim(admin, finalizers=(names.TERMINATION_FINALIZER,))
    async with watching() as watched:
        await watched.until(lambda: watched.store.claim(name_of(claim)) is not None)
        await gateway.delete_claim(name_of(claim), uid=claim["metadata"]["uid"])
        await watched.until(lambda: ("NodeClaim", "MODIFIED", name_of(claim)) in watched.events)
        deleting = await gateway.get_claim(name_of(claim))
        assert deleting is not None
        assert deleting["metadata"]["finalizers"] == [names.TERMINATION_FINALIZER]
        await gateway.patch_claim(
            name_of(claim), {"metadata": {"finalizers": None}}, resource_version=version_of(deleting)
        )
        await watched.until(lambda: ("NodeClaim", "DELETED", name_of(claim)) in watched.events)


async def test_restart_of_the_api_server_is_survived(
    cluster: ControlPlane, admin: ApiClient, gateway: KubeGateway
) -> None:
    ghost, stays = create_claim(admin), create_claim(admin)
    async with watching() as watched:
        await watched.until(lambda: watched.store.claim(name_of(stays)) is not None)
        await asyncio.to_thread(cluster.stop_apiserver)
        with pytest.raises(Unavailable):
            await gateway.list_claims()
        await asyncio.to_thread(cluster.start_apiserver)
        admin.request("DELETE", f"{CLAIMS}/{name_of(ghost)}")
        after = create_claim(admin)
        await watched.until(lambda: watched.store.claim(name_of(after)) is not None)
        claims, version = await gateway.list_claims()
        watched.store.replace_claims(claims, resource_version=version)
        assert watched.store.claim(name_of(ghost)) is None
        assert watched.store.claim(name_of(stays)) is not None


async def test_refused_credentials_end_the_watch(
    cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": "invalid"}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    watched = Watched()
    with pytest.raises((kopf.LoginError, AssertionError)):
        await asyncio.wait_for(run_watch(watched.kinds, stop=asyncio.Event()), DEADLINE)
    # An AssertionError is that of another of its tasks, whose session was closed by this very end.
    assert re.search("(?i)unauthorized|credentials", caplog.text)


async def test_cancelled_watch_takes_nothing_with_it(admin: ApiClient) -> None:
    watched = Watched()
    watch = asyncio.create_task(run_watch(watched.kinds, stop=asyncio.Event(), ready=watched.ready))
    await watched.ready.wait()
    claim = create_claim(admin)
    await watched.until(lambda: watched.store.claim(name_of(claim)) is not None)
    bystander = asyncio.create_task(asyncio.sleep(DEADLINE))
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch
    await asyncio.sleep(0)
    assert not bystander.done()
    bystander.cancel()


async def test_kinds_installed_after_the_start_are_watched(cluster: ControlPlane, admin: ApiClient) -> None:
    await asyncio.to_thread(uninstall, cluster, CLAIM_CRD, NODE_CLASS_CRD)
    node = create_node(admin)
    # Where a kind goes whose watch has just broken off, there is nothing to go on with, and kopf dies of it.
    async with watching(anew=True) as watched, KubeGateway() as gateway:
        await watched.until(lambda: watched.store.node(name_of(node)) is not None)
        with pytest.raises(Gone):
            await gateway.list_claims()
        assert await gateway.list_node_classes() == []
        for crd in (CLAIM_CRD, NODE_CLASS_CRD):
            await asyncio.to_thread(cluster.apply, crd)
        claim = await asyncio.to_thread(create_claim, admin)
        await watched.until(lambda: watched.store.claim(name_of(claim)) is not None)
        # And one that goes and comes again.
        await asyncio.to_thread(uninstall, cluster, CLAIM_CRD)
        await watched.until(lambda: watched.store.claim(name_of(claim)) is None)
        await asyncio.to_thread(cluster.apply, CLAIM_CRD)
        again = await asyncio.to_thread(create_claim, admin)
        await watched.until(lambda: watched.store.claim(name_of(again)) is not None)
        with pytest.raises(KubeError):
            await gateway.patch_claim(name_of(claim), {}, resource_version=version_of(claim))
