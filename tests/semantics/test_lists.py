"""Lists: selected by labels and fields, sorted, and in pages."""

import urllib.parse

import pytest

from tests.semantics.client import Kube, Object, names, unique
from tests.semantics.things import CONFIG_MAPS, NODES, THINGS, config_map, path, pod, thing


@pytest.fixture(scope="module")
def mark() -> str:
    return unique("mark")


@pytest.fixture
def maps(kube: Kube, namespace: str) -> str:
    """Where four maps are: a and b of the team red, c of blue, d of none."""
    place = f"/api/v1/namespaces/{namespace}/configmaps"
    for name, labels in (("d", {}), ("b", {"team": "red", "old": ""}), ("c", {"team": "blue"}), ("a", {"team": "red"})):
        kube.create(place, config_map(name, labels={**labels, "own": "1"}))
    return place


def selected(kube: Kube, place: str, **query: str) -> list[str]:
    return names(kube.get(f"{place}?{urllib.parse.urlencode(query)}"))


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("team=red", ["a", "b"]),
        ("team==blue", ["c"]),
        ("own,team!=red", ["c", "d"]),
        ("team in (red,blue)", ["a", "b", "c"]),
        ("own,team notin (red)", ["c", "d"]),
        ("team", ["a", "b", "c"]),
        ("own,!team", ["d"]),
        ("team=red,old", ["b"]),
        ("team=red,!old", ["a"]),
        ("old=", ["b"]),
        ("team=green", []),
    ],
)
def test_labels_select(kube: Kube, maps: str, selector: str, found: list[str]) -> None:
    assert selected(kube, maps, labelSelector=selector) == found


@pytest.mark.parametrize("selector", ["a b", "a in (b", "=b", "a in b"])
def test_odd_label_selector_is_a_bad_request(kube: Kube, selector: str) -> None:
    answer = kube.ask("GET", f"{CONFIG_MAPS}?labelSelector={urllib.parse.quote(selector)}")
    assert (answer.code, answer.reason) == (400, "BadRequest")


def test_names_and_namespaces_select(kube: Kube, maps: str) -> None:
    assert selected(kube, maps, fieldSelector="metadata.name=b") == ["b"]
    assert selected(kube, maps, labelSelector="own", fieldSelector="metadata.name!=b") == ["a", "c", "d"]
    namespace = maps.split("/")[4]
    of_namespace = f"metadata.namespace={namespace}"
    everywhere = selected(kube, "/api/v1/configmaps", labelSelector="own", fieldSelector=of_namespace)
    assert everywhere == ["a", "b", "c", "d"]


def test_unknown_field_is_a_bad_request(kube: Kube) -> None:
    for place in (CONFIG_MAPS, THINGS):
        answer = kube.ask("GET", f"{place}?fieldSelector=spec.size%3D1")
        assert (answer.code, answer.reason) == (400, "BadRequest")


def test_pods_are_selected_by_node_and_phase(kube: Kube, namespace: str, node: Object) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    here = kube.create(pods, pod(nodeName=node["metadata"]["name"]))["metadata"]["name"]
    waits = kube.create(pods, pod())["metadata"]["name"]
    assert selected(kube, pods, fieldSelector=f"spec.nodeName={node['metadata']['name']}") == [here]
    assert selected(kube, pods, fieldSelector="spec.nodeName=") == [waits]
    running = "status.phase!=Running,status.phase=Pending"
    assert sorted(selected(kube, pods, fieldSelector=running)) == sorted([here, waits])


def test_events_are_selected_by_what_they_are_about(kube: Kube) -> None:
    events = "/api/v1/namespaces/default/events"
    about = {"kind": "Thing", "name": unique("about"), "uid": "1-2-3"}
    body = {"involvedObject": about, "type": "Warning", "reason": "Late", "source": {"component": "me"}}
    made = kube.create(events, {"metadata": {"name": unique("event")}, **body})["metadata"]["name"]
    kube.create(events, {"metadata": {"name": unique("event")}, **body, "involvedObject": {**about, "name": "other"}})
    assert selected(kube, events, fieldSelector=f"involvedObject.name={about['name']}") == [made]
    all_of_it = f"involvedObject.name={about['name']},involvedObject.kind=Thing,type=Warning,reason=Late,source=me"
    assert selected(kube, events, fieldSelector=all_of_it) == [made]
    assert selected(kube, events, fieldSelector=f"involvedObject.name={about['name']},type=Normal") == []


def test_nodes_are_selected_by_whether_they_take_pods(kube: Kube, node: Object) -> None:
    name = node["metadata"]["name"]
    both = {"labelSelector": f"node={name}"}
    assert selected(kube, NODES, **both, fieldSelector="spec.unschedulable=false") == [name]
    kube.patch(path(NODES, node), {"spec": {"unschedulable": True}})
    assert selected(kube, NODES, **both, fieldSelector="spec.unschedulable=true") == [name]


def test_list_is_sorted_and_has_a_version(kube: Kube, maps: str) -> None:
    listed = kube.get(f"{maps}?labelSelector=own")
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert names(listed) == ["a", "b", "c", "d"]
    newest = max(int(item["metadata"]["resourceVersion"]) for item in listed["items"])
    assert int(listed["metadata"]["resourceVersion"]) >= newest


def test_items_say_what_they_are_only_where_they_are_custom(kube: Kube, maps: str) -> None:
    assert "kind" not in kube.get(maps)["items"][0]
    kube.create(THINGS, thing())
    assert kube.get(THINGS)["items"][0]["kind"] == "Thing"


def test_pages_are_of_one_moment(kube: Kube, maps: str) -> None:
    first = kube.get(f"{maps}?limit=2")
    total = len(kube.get(maps)["items"])
    assert len(first["items"]) == 2
    assert first["metadata"]["remainingItemCount"] == total - 2
    kube.create(maps, config_map("zzz"))
    kube.delete(f"{maps}/d")
    token = urllib.parse.quote(first["metadata"]["continue"])
    second = kube.get(f"{maps}?limit=500&continue={token}")
    assert not second["metadata"].get("continue")
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert len(second["items"]) == total - 2
    assert {"zzz"}.isdisjoint(names(second))
    assert "d" in names(second)


def test_selected_pages_do_not_count_what_is_left(kube: Kube, maps: str) -> None:
    page = kube.get(f"{maps}?limit=1&labelSelector=team%3Dred")
    assert names(page) == ["a"]
    assert "remainingItemCount" not in page["metadata"]
    token = urllib.parse.quote(page["metadata"]["continue"])
    assert names(kube.get(f"{maps}?limit=1&labelSelector=team%3Dred&continue={token}")) == ["b"]


@pytest.mark.parametrize("query", ["limit=x", "continue=x", "resourceVersion=x"])
def test_odd_query_is_a_bad_request(kube: Kube, query: str) -> None:
    assert kube.ask("GET", f"{CONFIG_MAPS}?{query}").code == 400


def test_list_of_a_namespace_that_is_not_there_is_empty(kube: Kube) -> None:
    assert kube.get("/api/v1/namespaces/nowhere/configmaps")["items"] == []
