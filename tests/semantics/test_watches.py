"""Watches: what they tell, from when on, and when they end."""

import urllib.parse
from typing import Any

import pytest

from tests.semantics.client import Kube, Object, eventually, unique
from tests.semantics.things import (
    CRDS,
    GROUP,
    NODES,
    THINGS,
    config_map,
    crd,
    is_established,
    open_version,
    path,
    thing,
)


@pytest.fixture
def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def now(kube: Kube, place: str) -> dict[str, str]:
    """The version from which on a watch tells what happens next."""
    return {"resourceVersion": kube.get(place)["metadata"]["resourceVersion"]}


def own(label: str, *, name: str | None = None, data: Object | None = None) -> Object:
    return config_map(name, labels={"own": label}, data=data)


def test_watch_tells_of_each_change(kube: Kube, maps: str) -> None:
    with kube.watch(maps, **now(kube, maps)) as watch:
        made = kube.create(maps, config_map("a"))
        changed = kube.patch(f"{maps}/a", {"data": {"x": "y"}})
        kube.delete(f"{maps}/a")
        added, modified, deleted = watch.next(), watch.next(), watch.next()
    assert [event["type"] for event in (added, modified, deleted)] == ["ADDED", "MODIFIED", "DELETED"]
    assert added["object"]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert (modified["object"]["kind"], modified["object"]["data"]) == ("ConfigMap", {"x": "y"})
    assert modified["object"]["metadata"] == changed["metadata"]
    assert deleted["object"]["data"] == {"x": "y"}
    assert int(deleted["object"]["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])


def test_watch_from_a_version_tells_what_came_after_it(kube: Kube, maps: str) -> None:
    kube.create(maps, config_map("before"))
    since = now(kube, maps)
    kube.create(maps, config_map("a"))
    kube.delete(f"{maps}/a")
    kube.create(maps, config_map("b"))
    with kube.watch(maps, **since) as watch:
        assert [watch.told() for _ in range(3)] == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "b")]


@pytest.mark.parametrize("version", ["", "0"])
def test_watch_from_no_version_tells_what_is_there_first(kube: Kube, maps: str, version: str) -> None:
    for name in ("a", "b"):
        kube.create(maps, own("x", name=name))
    query = {"labelSelector": "own=x", **({"resourceVersion": version} if version else {})}
    # What is there may come from a cache that is a little behind.
    eventually(lambda: len(kube.get(f"{maps}?labelSelector=own%3Dx&resourceVersion=0")["items"]) == 2)
    with kube.watch(maps, **query) as watch:
        assert {watch.told(), watch.told()} == {("ADDED", "a"), ("ADDED", "b")}
        kube.create(maps, own("x", name="c"))
        assert watch.told() == ("ADDED", "c")


def test_watch_ends_when_its_time_is_over(kube: Kube, maps: str) -> None:
    with kube.watch(maps, **{**now(kube, maps), "timeoutSeconds": "1"}) as watch:
        assert [event for event in watch if event["type"] != "BOOKMARK"] == []


def test_write_without_a_change_is_not_told(kube: Kube, maps: str) -> None:
    kube.create(maps, config_map("a", data={"x": "y"}))
    with kube.watch(maps, **now(kube, maps)) as watch:
        kube.patch(f"{maps}/a", {"data": {"x": "y"}})
        kube.create(maps, config_map("b"))
        assert watch.told() == ("ADDED", "b")


def test_object_comes_and_goes_as_its_labels_are_selected(kube: Kube, maps: str) -> None:
    kube.create(maps, own("other", name="a"))
    with kube.watch(maps, **now(kube, maps), labelSelector="own=me") as watch:
        kube.patch(f"{maps}/a", {"data": {"unseen": "1"}})
        kube.patch(f"{maps}/a", {"metadata": {"labels": {"own": "me"}}})
        kube.patch(f"{maps}/a", {"data": {"seen": "1"}})
        kube.patch(f"{maps}/a", {"metadata": {"labels": {"own": "other"}}})
        kube.delete(f"{maps}/a")
        kube.create(maps, own("me", name="b"))
        assert [watch.told() for _ in range(4)] == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "b")]


def test_one_object_is_watched_by_its_name(kube: Kube, maps: str) -> None:
    with kube.watch(maps, **now(kube, maps), fieldSelector="metadata.name=b") as watch:
        kube.create(maps, config_map("a"))
        kube.create(maps, config_map("b"))
        assert watch.told() == ("ADDED", "b")


def test_all_namespaces_are_watched_together(kube: Kube, namespace: str) -> None:
    everywhere, label = "/api/v1/configmaps", unique("own")
    with kube.watch(everywhere, **now(kube, everywhere), labelSelector=f"own={label}") as watch:
        for place in ("default", namespace):
            kube.create(f"/api/v1/namespaces/{place}/configmaps", own(label))
        assert [watch.next()["object"]["metadata"]["namespace"] for _ in range(2)] == ["default", namespace]


def test_many_watches_are_told_the_same(kube: Kube, maps: str) -> None:
    since = now(kube, maps)
    with kube.watch(maps, **since) as one, kube.watch(maps, **since) as other:
        kube.create(maps, config_map("a"))
        assert one.next() == other.next()


def test_finalizers_keep_an_object_in_the_watch(kube: Kube) -> None:
    body = thing(finalizers=["a.example/b"])
    query = {**now(kube, THINGS), "fieldSelector": f"metadata.name={body['metadata']['name']}"}
    with kube.watch(THINGS, **query) as watch:
        kube.create(THINGS, body)
        kube.delete(path(THINGS, body))
        kube.patch(path(THINGS, body), {"metadata": {"finalizers": None}})
        assert [watch.next()["type"] for _ in range(3)] == ["ADDED", "MODIFIED", "DELETED"]


def test_initial_events_end_with_a_bookmark(kube: Kube, maps: str) -> None:
    for name in ("a", "b"):
        kube.create(maps, own("x", name=name))
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    with kube.watch(maps, **query, labelSelector="own=x") as watch:
        assert {watch.told(), watch.told()} == {("ADDED", "a"), ("ADDED", "b")}
        bookmark = watch.next()
        assert bookmark["type"] == "BOOKMARK"
        metadata = bookmark["object"]["metadata"]
        assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
        kube.create(maps, own("x", name="c"))
        assert watch.told() == ("ADDED", "c")
    with kube.watch(maps, resourceVersion=metadata["resourceVersion"], labelSelector="own=x") as watch:
        assert watch.told() == ("ADDED", "c")


def test_initial_events_are_asked_for_in_full(kube: Kube, maps: str) -> None:
    answer = kube.ask("GET", f"{maps}?watch=true&sendInitialEvents=true&timeoutSeconds=1")
    assert (answer.code, answer.fields()) == (422, {"resourceVersionMatch"})


def test_version_from_before_the_kind_is_expired(kube: Kube) -> None:
    old = now(kube, NODES)["resourceVersion"]
    body = crd("meteors", "Meteor", open_version())
    kube.create(CRDS, body)
    eventually(lambda: kube.get(path(CRDS, body)), until=is_established)
    place = f"/apis/{GROUP}/v1/meteors"
    eventually(lambda: kube.ask("GET", place), until=lambda answer: answer.code == 200)
    for number in range(3):
        kube.create(THINGS, thing(unique(f"filler{number}")))

    def told() -> Any:
        # A version that is too old is refused at once, or in the watch.
        answer = kube.ask("GET", f"{place}?watch=true&timeoutSeconds=1&resourceVersion={old}")
        return answer.body if answer.code == 410 else answer.body["object"]

    assert (told()["code"], told()["reason"]) == (410, "Expired")


def test_watch_of_a_kind_ends_with_the_kind(kube: Kube) -> None:
    body = crd("flares", "Flare", open_version())
    kube.create(CRDS, body)
    eventually(lambda: kube.get(path(CRDS, body)), until=is_established)
    place = f"/apis/{GROUP}/v1/namespaces/default/flares"
    eventually(lambda: kube.ask("GET", place), until=lambda answer: answer.code == 200)
    flare = {"apiVersion": f"{GROUP}/v1", "kind": "Flare", "metadata": {"name": "a"}}
    kube.create(place, flare)
    with kube.watch(place, **now(kube, place)) as watch:
        kube.delete(path(CRDS, body))
        assert watch.told() == ("DELETED", "a")
        assert [event for event in watch if event["type"] != "BOOKMARK"] == []


def test_watch_of_nodes_tells_of_status(kube: Kube, node: Object) -> None:
    name = node["metadata"]["name"]
    query = urllib.parse.urlencode({"fieldSelector": f"metadata.name={name}"})
    with kube.watch(f"{NODES}?{query}", **now(kube, NODES)) as watch:
        kube.patch(f"{path(NODES, node)}/status", {"status": {"phase": "Running"}})
        assert any(event["object"]["status"].get("phase") == "Running" for event in watch)
