"""A node that is behind its class, the cluster's Kubernetes or the newest image says so, and works on as before."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.azure import Answer
from fakes.cluster.interface import ControlPlane
from tests.claims import kaito_claim
from tests.kube import CLAIMS, CRDS, NODE_CLASSES, Kube, Object, condition, eventually, has_reason, is_true
from tests.scenarios.asking import ask
from tests.scenarios.azure_side import CLAIM_TAG, CLAIM_UID_TAG, calls
from tests.scenarios.on_azure import put_pool, settings, wait_pool
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

OLD, NEW = "AKSUbuntu-2204gen2containerd-202611.04.0", "AKSUbuntu-2204gen2containerd-202612.01.0"
UPGRADES = "agentPools.getUpgradeProfile"
HASH = "kaito.sh/kaitonodeclass-hash"
CRD = "kaitonodeclasses.kaito.sh"


async def add_field(_: FakeAks, kube: Kube) -> None:
    """Let the CRD of the class have a field that this controller has never heard of.

    Before the controller starts: a watch that began under the old definition goes on for a while without the field.
    """
    crd = await kube.get(CRDS, CRD)
    assert crd is not None
    for version in crd["spec"]["versions"]:
        fields = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        fields["imagePool"] = {"type": "string"}
    await kube.patch(CRDS, CRD, {"spec": {"versions": crd["spec"]["versions"]}})
    await write_class(kube, "probe", imagePool="any")
    await kube.delete(NODE_CLASSES, "probe")


async def remove_field(kube: Kube) -> None:
    crd = await kube.get(CRDS, CRD)
    assert crd is not None
    for version in crd["spec"]["versions"]:
        del version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["imagePool"]
    await kube.patch(CRDS, CRD, {"spec": {"versions": crd["spec"]["versions"]}})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    log = tmp_path_factory.mktemp("drift") / "controller.log"
    settings = {"NODE_IMAGE_CHECK_SECONDS": "1"}
    async with running(control_plane, log=log, prepare=add_field, settings=settings) as cluster:
        await cluster.controller.wait_started()
        yield cluster
        await remove_field(cluster.kube)


@pytest.fixture
def kube(cluster: Running) -> Kube:
    return cluster.kube


@pytest.fixture
def aks(cluster: Running) -> FakeAks:
    return cluster.aks


async def ready(kube: Kube, name: str, *, node_class: str = "default") -> Object:
    claim = kaito_claim(name)
    claim["spec"]["nodeClassRef"]["name"] = node_class
    await kube.create(CLAIMS, claim)
    return await kube.wait_claim(name, is_true("Ready"))


def drifts(reason: str, *parts: str) -> Any:
    """Return a predicate: the claim has drifted for that reason, its message has these parts, and it is Ready still."""

    def check(claim: Object) -> bool:
        drifted = condition(claim, "Drifted")
        told = drifted.get("message", "")
        return has_reason("Drifted", reason)(claim) and all(part in told for part in parts) and is_true("Ready")(claim)

    return check


def is_as_new(claim: Object) -> bool:
    return condition(claim, "Drifted") == {} and is_true("Ready")(claim)


async def wait_events(kube: Kube, name: str, *reasons: str) -> None:
    """Wait until there was one Event for each of these reasons of drift, and none for another."""

    async def told() -> dict[str, int]:
        return {e["reason"]: e["count"] for e in await kube.events_of(name) if e["reason"].endswith("Drift")}

    await eventually(told, until=lambda seen: seen == dict.fromkeys(reasons, 1), what=f"Events {reasons} of {name}")


async def collector_reads_cluster(aks: FakeAks) -> None:
    """Have a pool collected whose claim is gone: before that the cluster itself is read."""
    put_pool(aks, "orphan", vmSize="Standard_D4s_v5", tags={CLAIM_TAG: "orphan", CLAIM_UID_TAG: str(uuid4())})
    await wait_pool(aks, "orphan", None)


async def write_class(kube: Kube, name: str, **spec: str) -> Object:
    """Write a class until all of its fields are taken, for an API server learns of a new one in its own time."""
    body = {"apiVersion": "kaito.sh/v1alpha1", "kind": "KaitoNodeClass", "metadata": {"name": name}, "spec": spec}
    if await kube.get(NODE_CLASSES, name) is None:
        await kube.create(NODE_CLASSES, body)

    async def write() -> Object:
        return await kube.patch(NODE_CLASSES, name, {"spec": spec})

    return await eventually(write, until=lambda seen: seen.get("spec") == spec, what=f"class {name} with {spec}")


async def change_class(kube: Kube, name: str, **spec: str) -> None:
    """Write a class, and wait until the controller has seen it so."""
    generation = (await write_class(kube, name, **spec))["metadata"]["generation"]

    async def observed() -> int:
        return int(condition(await kube.get(NODE_CLASSES, name) or {}, "Ready").get("observedGeneration", 0))

    await eventually(observed, until=lambda seen: seen == generation, what=f"class {name} is Ready")


async def test_newer_image_is_told_of_for_as_long_as_there_is_one_and_asked_of_one_pool(
    aks: FakeAks, kube: Kube
) -> None:
    names = ("wsimage1", "wsimage2")
    for name in names:
        await ready(kube, name)

    with settings(aks, node_image_release="202612.01.0"):
        for name in names:
            claim = await kube.wait_claim(name, drifts("ImageDrift", OLD, NEW))
            assert condition(claim, "Drifted")["status"] == "True"
            await wait_events(kube, name, "ImageDrift")
        row = (await ask(aks, "status", "wsimage1")).rows["wsimage1"]
        assert (row[4], row[7]) == ("Ready", "ImageDrift:")

        # What is not known just now is not taken back.
        refused = Answer(operation=UPGRADES, status=403, body={"error": {"code": "AuthorizationFailed"}}, times=None)
        fault = aks.azure.add_fault(refused)
        await eventually(lambda: _hits(aks), what="a refused question for the newest image")
        assert drifts("ImageDrift", OLD, NEW)(await kube.wait_claim("wsimage1", is_true("Ready")))
        aks.azure.faults.remove(fault)

    for name in names:
        await kube.wait_claim(name, is_as_new)
        await wait_events(kube, name, "ImageDrift")
    assert {len(calls(aks, UPGRADES, name)) > 0 for name in names} == {True, False}
    assert calls(aks, UPGRADES, "systempool") == []
    for name in names:
        await kube.delete(CLAIMS, name)
        await kube.wait_gone(CLAIMS, name)


async def _hits(aks: FakeAks) -> int:
    return sum(int(str(entry["hits"])) for entry in aks.azure.faults.listing())


async def test_upgrade_of_the_control_plane_is_told_of_and_not_while_it_goes_on(aks: FakeAks, kube: Kube) -> None:
    await ready(kube, "wsversion")

    aks.azure.cluster.set_state(kubernetes_version="1.35.1", provisioning_state="Upgrading")
    assert is_as_new(await kube.wait_claim("wsversion", is_true("Ready")))

    aks.azure.cluster.set_state(provisioning_state="Succeeded")
    await collector_reads_cluster(aks)
    await kube.wait_claim("wsversion", drifts("K8sVersionDrift", "1.34.2", "1.35.1"))
    await wait_events(kube, "wsversion", "K8sVersionDrift")

    # One that is made now is as it should be; so is the other once its pool is upgraded.
    assert is_as_new(await ready(kube, "wslater"))
    pool = aks.azure.cluster.pool("wsversion")
    pool.version = "1.35.1"
    pool.touch()
    await kube.wait_claim("wsversion", is_as_new)
    assert is_as_new(await kube.wait_claim("wslater", is_true("Ready")))
    aks.azure.cluster.set_state(kubernetes_version="1.34.2")
    await collector_reads_cluster(aks)


async def test_change_of_the_class_is_told_of_but_not_of_what_only_chooses_sizes(aks: FakeAks, kube: Kube) -> None:
    await change_class(kube, "gold", imagePool="first")
    before = (await ready(kube, "wsclass", node_class="gold"))["metadata"]["annotations"]
    await ready(kube, "wsother")
    assert before[f"{HASH}-version"] == "v1"

    await change_class(kube, "gold", imagePool="first", sizePreference="Listed")
    await change_class(kube, "gold", imagePool="second", sizePreference="Listed")
    claim = await kube.wait_claim("wsclass", drifts("NodeClassDrift", before[HASH], "gold"))
    assert claim["metadata"]["annotations"][HASH] == before[HASH]
    later = await ready(kube, "wsnewer", node_class="gold")
    assert later["metadata"]["annotations"][HASH] != before[HASH]

    await change_class(kube, "gold", imagePool="first", sizePreference="Listed")
    await kube.wait_claim("wsclass", is_as_new)
    await kube.wait_claim("wsnewer", drifts("NodeClassDrift"))
    await wait_events(kube, "wsclass", "NodeClassDrift")

    # Without its class there is nothing to compare with.
    await kube.delete(NODE_CLASSES, "gold")
    await kube.wait_claim("wsnewer", is_as_new)
    await wait_events(kube, "wsother")
