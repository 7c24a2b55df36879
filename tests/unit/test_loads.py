"""What is on a Node that is taken down: pods, and volumes that are to be detached first."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from provisioner.kube.errors import Forbidden, Gone, KubeError, Unavailable
from provisioner.nodeclaim.loads import Loads
from tests.unit.builders import NOW, node
from tests.unit.pod_builders import attachment, raw_pod
from tests.unit.virtual_time import virtual_time

TOLERANT: dict[str, Any] = {"tolerations": [{"operator": "Exists"}]}


class Kube:
    """The API server: pods by Node, attachments, the volumes of claims, and an error for each question."""

    def __init__(self) -> None:
        self.pods: dict[str, list[dict[str, Any]]] = {}
        self.attachments: list[dict[str, Any]] = []
        self.volumes: dict[tuple[str, str], str] = {}
        self.errors: dict[str, KubeError] = {}
        self.asked: Counter[str] = Counter()
        self.takes = 0.0

    async def _answer(self, what: str) -> None:
        self.asked[what] += 1
        await asyncio.sleep(self.takes)
        if what in self.errors:
            raise self.errors[what]

    async def list_pods(self, *, node: str) -> list[dict[str, Any]]:
        await self._answer("pods")
        return self.pods.get(node, [])

    async def list_volume_attachments(self) -> list[dict[str, Any]]:
        await self._answer("attachments")
        return list(self.attachments)

    async def get_volume_claim(self, namespace: str, name: str) -> dict[str, Any] | None:
        await self._answer("claims")
        volume = self.volumes.get((namespace, name))
        return {"spec": {"volumeName": volume} if volume else {}} if volume is not None else None


NODE = node("w1")
OTHER = node("w2")


def loads(kube: Kube) -> Loads:
    return Loads(kube, now=lambda: NOW)


async def volumes(kube: Kube) -> tuple[str, ...]:
    return (await loads(kube).read([NODE]))[NODE.name].volumes


@virtual_time
async def test_each_node_has_its_own_pods() -> None:
    kube = Kube()
    kube.pods = {NODE.name: [raw_pod("a"), raw_pod("b")], OTHER.name: [raw_pod("c")]}
    found = await loads(kube).read([NODE, OTHER])
    assert {name: [pod.name for pod in load.pods] for name, load in found.items()} == {
        NODE.name: ["a", "b"],
        OTHER.name: ["c"],
    }


@virtual_time
async def test_nothing_is_asked_for_no_nodes() -> None:
    kube = Kube()
    assert await loads(kube).read([]) == {}
    assert not kube.asked


@virtual_time
async def test_volumes_attached_to_the_node_are_waited_for() -> None:
    kube = Kube()
    kube.attachments = [
        attachment("csi-b", node=NODE.name, volume="pv-b"),
        attachment("csi-a", node=NODE.name, volume="pv-a"),
        attachment("csi-c", node=OTHER.name, volume="pv-c"),
        attachment("csi-inline", node=NODE.name, volume=None),
    ]
    assert await volumes(kube) == ("csi-a", "csi-b")


@pytest.mark.parametrize(
    ("stays", "volume", "awaited"),
    [
        (TOLERANT, "pv-a", ()),
        ({"mirror": True}, "pv-a", ()),
        ({"deleted": NOW - timedelta(minutes=2)}, "pv-a", ()),
        ({}, "pv-a", ("csi-a",)),
        # Its containers have ended, so that the kubelet lets go of its volumes.
        ({"phase": "Succeeded"}, "pv-a", ("csi-a",)),
        (TOLERANT, "pv-of-another", ("csi-a",)),
        # Not bound to a volume yet, and one that is gone.
        (TOLERANT, "", ("csi-a",)),
        (TOLERANT, None, ("csi-a",)),
    ],
)
def test_only_volumes_of_pods_that_drain_are_waited_for(
    stays: dict[str, Any], volume: str | None, awaited: tuple[str, ...]
) -> None:
    @virtual_time
    async def run() -> None:
        kube = Kube()
        kube.pods = {NODE.name: [raw_pod(claims=["data"], **stays)]}
        kube.attachments = [attachment("csi-a", node=NODE.name, volume="pv-a")]
        if volume is not None:
            kube.volumes = {("default", "data"): volume}
        assert await volumes(kube) == awaited

    run()


@virtual_time
async def test_generic_ephemeral_volume_of_a_staying_pod_is_found_by_its_claims_name() -> None:
    kube = Kube()
    stays = raw_pod("agent", **TOLERANT)
    stays["spec"]["volumes"] = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}]
    kube.pods = {NODE.name: [stays]}
    kube.attachments = [attachment("csi-a", node=NODE.name, volume="pv-a")]
    kube.volumes = {("default", "agent-scratch"): "pv-a"}
    assert await volumes(kube) == ()


@virtual_time
async def test_claims_are_asked_for_only_where_volumes_are_attached() -> None:
    kube = Kube()
    kube.pods = {NODE.name: [raw_pod(claims=["data"], **TOLERANT)]}
    kube.attachments = [attachment("csi-c", node=OTHER.name, volume="pv-c")]
    assert await volumes(kube) == ()
    assert kube.asked == Counter(pods=1, attachments=1)


@virtual_time
async def test_one_list_of_attachments_serves_all_that_ask_within_a_second() -> None:
    kube = Kube()
    reader = loads(kube)
    kube.takes = 0.2
    await asyncio.gather(*(reader.read([NODE]) for _ in range(50)))
    await reader.read([OTHER])
    assert kube.asked["attachments"] == 1
    await asyncio.sleep(1.0)
    kube.attachments = [attachment("csi-a", node=NODE.name, volume="pv-a")]
    assert (await reader.read([NODE]))[NODE.name].volumes == ("csi-a",)
    assert kube.asked["attachments"] == 2


@virtual_time
async def test_list_that_takes_long_is_not_asked_for_again_meanwhile() -> None:
    kube = Kube()
    reader = loads(kube)
    kube.takes = 5.0
    first = asyncio.create_task(reader.read([NODE]))
    await asyncio.sleep(3.0)
    second = asyncio.create_task(reader.read([NODE]))
    await asyncio.gather(first, second)
    assert kube.asked["attachments"] == 1


@virtual_time
async def test_who_is_cancelled_takes_the_answer_from_nobody() -> None:
    kube = Kube()
    reader = loads(kube)
    kube.takes = 0.2
    kube.attachments = [attachment("csi-a", node=NODE.name, volume="pv-a")]
    first = asyncio.create_task(reader.read([NODE]))
    second = asyncio.create_task(reader.read([NODE]))
    await asyncio.sleep(0.1)
    first.cancel()
    assert (await second)[NODE.name].volumes == ("csi-a",)


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ("attachments", Gone("no such kind", status=404)),
        ("attachments", Forbidden("may not list", status=403)),
        ("claims", Forbidden("may not get", status=403)),
    ],
)
def test_cluster_that_does_not_tell_of_volumes_has_none_to_wait_for(
    question: str, error: KubeError, caplog: pytest.LogCaptureFixture
) -> None:
    @virtual_time
    async def run() -> None:
        kube = Kube()
        kube.pods = {NODE.name: [raw_pod(claims=["data"], **TOLERANT)]}
        kube.attachments = [attachment("csi-a", node=NODE.name, volume="pv-b")]
        kube.errors = {question: error}
        reader = loads(kube)
        for _ in range(3):
            load = (await reader.read([NODE]))[NODE.name]
            assert (len(load.pods), load.volumes) == (1, ())
            await asyncio.sleep(2.0)

    run()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "without waiting for their volumes" in caplog.text


@pytest.mark.parametrize("question", ["pods", "attachments", "claims"])
def test_api_server_that_does_not_answer_is_no_empty_node(question: str) -> None:
    @virtual_time
    async def run() -> None:
        kube = Kube()
        kube.pods = {NODE.name: [raw_pod(claims=["data"], **TOLERANT)]}
        kube.attachments = [attachment("csi-a", node=NODE.name, volume="pv-a")]
        kube.errors = {question: Unavailable("away")}
        reader = loads(kube)
        with pytest.raises(Unavailable):
            await reader.read([NODE])
        kube.errors = {}
        await asyncio.sleep(1.0)
        assert (await reader.read([NODE]))[NODE.name].volumes == ("csi-a",)

    run()


@virtual_time
async def test_pods_that_may_not_be_listed_are_no_empty_node() -> None:
    kube = Kube()
    kube.errors = {"pods": Forbidden("may not list", status=403)}
    with pytest.raises(Forbidden):
        await loads(kube).read([NODE])


@virtual_time
async def test_pod_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    kube = Kube()
    kube.pods = {NODE.name: [{"metadata": {"name": "a"}}, raw_pod("b", tolerations="all"), raw_pod("c")]}
    load = (await loads(kube).read([NODE]))[NODE.name]
    assert [pod.name for pod in load.pods] == ["c"]
    assert len(caplog.records) == 2
