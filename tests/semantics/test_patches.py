"""Patches: merge patch, JSON patch and strategic merge patch."""

from typing import Any

import pytest

from tests.semantics.client import JSON_PATCH, MERGE, STRATEGIC, Kube, Object, unique
from tests.semantics.things import CONFIG_MAPS, NODES, THINGS, config_map, path, template, thing

STATEFUL_SETS = "/apis/apps/v1/namespaces/default/statefulsets"


@pytest.fixture
def stateful_set(kube: Kube) -> Object:
    containers = [
        {"name": "one", "image": "a:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"name": "two", "image": "b:1", "args": ["x", "y"]},
    ]
    made = template(containers=containers)
    return kube.create(
        STATEFUL_SETS,
        {
            "metadata": {"name": unique("web"), "finalizers": ["a.example/one"]},
            "spec": {"replicas": 0, "selector": {"matchLabels": made["metadata"]["labels"]}, "template": made},
        },
    )


def strategic(kube: Kube, item: Object, spec: Object, **metadata: Any) -> Object:
    """Patch the spec of the pods of a StatefulSet; return it."""
    body = {"metadata": metadata, "spec": {"template": {"spec": spec}}}
    patched = kube.patch(path(STATEFUL_SETS, item), body, content_type=STRATEGIC)
    found: Object = patched["spec"]["template"]["spec"]
    return found


def test_merge_patch_sets_and_removes(kube: Kube) -> None:
    made = kube.create(CONFIG_MAPS, config_map(data={"a": "1", "b": "2"}, labels={"x": "y"}))
    patched = kube.patch(path(CONFIG_MAPS, made), {"data": {"a": None, "c": "3"}, "metadata": {"labels": None}})
    assert patched["data"] == {"b": "2", "c": "3"}
    assert "labels" not in patched["metadata"]


def test_merge_patch_replaces_lists(kube: Kube) -> None:
    made = kube.create(THINGS, thing(spec={"list": ["a", "b"]}))
    assert kube.patch(path(THINGS, made), {"spec": {"list": ["c"]}})["spec"]["list"] == ["c"]


def test_patch_on_a_version_is_a_lock(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    present = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    kube.patch(path(THINGS, made), {**present, "spec": {"size": 2}})
    answer = kube.ask("PATCH", path(THINGS, made), {**present, "spec": {"size": 3}}, content_type=MERGE)
    assert (answer.code, answer.reason) == (409, "Conflict")
    assert answer.body["details"]["kind"] == "things"


def test_json_patch_adds_replaces_and_removes(kube: Kube) -> None:
    made = kube.create(THINGS, thing(spec={"list": ["a"], "name": "abc"}))
    patch = [
        {"op": "test", "path": "/spec/size", "value": 1},
        {"op": "add", "path": "/spec/list/-", "value": "b"},
        {"op": "replace", "path": "/spec/size", "value": 2},
        {"op": "replace", "path": "/spec/replicas", "value": 3},
        {"op": "remove", "path": "/spec/name"},
        {"op": "add", "path": "/metadata/annotations", "value": {"a/b": "c"}},
        {"op": "replace", "path": "/metadata/annotations/a~1b", "value": "d"},
    ]
    patched = kube.patch(path(THINGS, made), patch, content_type=JSON_PATCH)
    assert patched["spec"] == {"size": 2, "list": ["a", "b"], "mode": "A", "replicas": 3}
    assert patched["metadata"]["annotations"] == {"a/b": "d"}


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param({"op": "test", "path": "/spec/size", "value": 5}, id="test"),
        pytest.param({"op": "remove", "path": "/spec/nothing"}, id="remove"),
        pytest.param({"op": "replace", "path": "/spec/nothing/deeper", "value": 1}, id="replace"),
        pytest.param({"op": "dance", "path": "/spec/size"}, id="unknown"),
    ],
)
def test_json_patch_that_fails_changes_nothing(kube: Kube, operation: Object) -> None:
    made = kube.create(THINGS, thing())
    patch = [{"op": "replace", "path": "/spec/size", "value": 2}, operation]
    answer = kube.ask("PATCH", path(THINGS, made), patch, content_type=JSON_PATCH)
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert kube.get(path(THINGS, made)) == made | {"metadata": kube.get(path(THINGS, made))["metadata"]}
    assert kube.get(path(THINGS, made))["spec"]["size"] == 1


def test_strategic_patch_merges_lists_by_their_keys(kube: Kube, stateful_set: Object) -> None:
    patch = {"containers": [{"name": "two", "image": "b:2"}, {"name": "three", "image": "c:1"}]}
    spec = strategic(kube, stateful_set, patch)
    images = {container["name"]: container["image"] for container in spec["containers"]}
    assert images == {"one": "a:1", "two": "b:2", "three": "c:1"}
    env: Object = {"containers": [{"name": "one", "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]}]}
    (one,) = [entry for entry in strategic(kube, stateful_set, env)["containers"] if entry["name"] == "one"]
    assert {entry["name"]: entry["value"] for entry in one["env"]} == {"A": "1", "B": "3", "C": "4"}


def test_strategic_patch_replaces_other_lists(kube: Kube, stateful_set: Object) -> None:
    spec = strategic(kube, stateful_set, {"containers": [{"name": "two", "args": ["z"]}]})
    assert next(entry["args"] for entry in spec["containers"] if entry["name"] == "two") == ["z"]


def test_strategic_patch_takes_items_out(kube: Kube, stateful_set: Object) -> None:
    spec = strategic(kube, stateful_set, {"containers": [{"name": "two", "$patch": "delete"}]})
    assert [entry["name"] for entry in spec["containers"]] == ["one"]
    replaced = {"containers": [{"$patch": "replace"}, {"name": "new", "image": "n:1"}]}
    assert [entry["name"] for entry in strategic(kube, stateful_set, replaced)["containers"]] == ["new"]


def test_strategic_patch_handles_lists_of_plain_values_as_sets(kube: Kube, stateful_set: Object) -> None:
    where = path(STATEFUL_SETS, stateful_set)
    added = kube.patch(where, {"metadata": {"finalizers": ["a.example/two"]}}, content_type=STRATEGIC)
    assert sorted(added["metadata"]["finalizers"]) == ["a.example/one", "a.example/two"]
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a.example/one"]}}
    assert kube.patch(where, patch, content_type=STRATEGIC)["metadata"]["finalizers"] == ["a.example/two"]


def test_strategic_patch_replaces_or_empties_a_map(kube: Kube) -> None:
    made = kube.create(CONFIG_MAPS, config_map(data={"a": "1", "b": "2"}))
    patch = {"data": {"$patch": "replace", "c": "3"}}
    assert kube.patch(path(CONFIG_MAPS, made), patch, content_type=STRATEGIC)["data"] == {"c": "3"}
    assert "data" not in kube.patch(path(CONFIG_MAPS, made), {"data": None}, content_type=STRATEGIC)


def test_conditions_of_a_node_are_merged_by_type_and_its_taints_replaced(kube: Kube, node: Object) -> None:
    patch = {"status": {"conditions": [{"type": "Own", "status": "True"}]}}
    patched = kube.patch(f"{path(NODES, node)}/status", patch, content_type=STRATEGIC)
    assert {entry["type"] for entry in patched["status"]["conditions"]} >= {"Ready", "Own"}
    taints = [{"key": "only", "effect": "NoSchedule"}]
    patched = kube.patch(path(NODES, node), {"spec": {"taints": taints}}, content_type=STRATEGIC)
    assert patched["spec"]["taints"] == taints


def test_strategic_patch_is_not_for_custom_resources(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    answer = kube.ask("PATCH", path(THINGS, made), {"spec": {"size": 2}}, content_type=STRATEGIC)
    assert (answer.code, answer.reason) == (415, "UnsupportedMediaType")


def test_patch_cannot_rename(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    assert kube.ask("PATCH", path(THINGS, made), {"metadata": {"name": "other"}}, content_type=MERGE).code == 400


def test_patched_object_is_validated(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    answer = kube.ask("PATCH", path(THINGS, made), {"spec": {"size": 0}}, content_type=MERGE)
    assert (answer.code, answer.fields()) == (422, {"spec.size"})
