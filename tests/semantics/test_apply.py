"""Server-side apply: everybody owns the fields that he applies."""

from typing import Any

from tests.semantics.client import MERGE, Kube, Object, unique
from tests.semantics.things import API_VERSION, CONFIG_MAPS, THINGS, config_map, path, thing


def part(name: str, /, **spec: Any) -> Object:
    """A configuration of some fields of a Thing."""
    return {"apiVersion": API_VERSION, "kind": "Thing", "metadata": {"name": name}, "spec": spec}


def test_applying_creates_and_does_nothing_the_second_time(kube: Kube) -> None:
    body = config_map(data={"a": "1"})
    first = kube.apply(path(CONFIG_MAPS, body), body, manager="m")
    second = kube.apply(path(CONFIG_MAPS, body), body, manager="m")
    assert (first.code, second.code) == (201, 200)
    assert first.body["metadata"]["resourceVersion"] == second.body["metadata"]["resourceVersion"]


def test_applier_has_to_have_a_name(kube: Kube) -> None:
    body = config_map()
    answer = kube.ask("PATCH", path(CONFIG_MAPS, body), body, content_type="application/apply-patch+yaml")
    assert answer.code in {400, 422}
    assert "fieldManager" in answer.message


def test_field_that_is_applied_no_more_goes(kube: Kube) -> None:
    body = config_map(data={"a": "1", "b": "2"})
    where = path(CONFIG_MAPS, body)
    kube.apply(where, body, manager="m")
    assert kube.apply(where, {**body, "data": {"a": "3"}}, manager="m").body["data"] == {"a": "3"}
    without = {key: value for key, value in body.items() if key != "data"}
    assert "data" not in kube.apply(where, without, manager="m").body


def test_fields_of_others_are_left_alone(kube: Kube) -> None:
    name = unique("thing")
    kube.apply(f"{THINGS}/{name}", part(name, size=1), manager="first")
    kube.apply(f"{THINGS}/{name}", part(name, name="abc"), manager="second")
    both = kube.apply(f"{THINGS}/{name}", part(name, size=2), manager="first").body
    assert (both["spec"]["size"], both["spec"]["name"]) == (2, "abc")
    kube.patch(f"{THINGS}/{name}", {"spec": {"replicas": 4}})
    assert kube.apply(f"{THINGS}/{name}", part(name, size=3), manager="first").body["spec"]["replicas"] == 4


def test_other_value_for_a_field_of_somebody_else_is_a_conflict(kube: Kube) -> None:
    name = unique("thing")
    kube.apply(f"{THINGS}/{name}", part(name, size=1), manager="first")
    answer = kube.apply(f"{THINGS}/{name}", part(name, size=2), manager="second")
    assert (answer.code, answer.reason) == (409, "Conflict")
    assert answer.message == 'Apply failed with 1 conflict: conflict with "first": .spec.size'
    (cause,) = answer.body["details"]["causes"]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".spec.size")


def test_force_takes_the_field(kube: Kube) -> None:
    name = unique("thing")
    kube.apply(f"{THINGS}/{name}", part(name, size=1), manager="first")
    assert kube.apply(f"{THINGS}/{name}", part(name, size=2), manager="second", force=True).body["spec"]["size"] == 2
    assert kube.apply(f"{THINGS}/{name}", part(name, size=1), manager="first").code == 409


def test_same_value_is_shared(kube: Kube) -> None:
    name = unique("thing")
    kube.apply(f"{THINGS}/{name}", part(name, size=1, name="abc"), manager="first")
    assert kube.apply(f"{THINGS}/{name}", part(name, size=1, name="abc"), manager="second").code == 200
    # It stays as long as one of them applies it.
    assert kube.apply(f"{THINGS}/{name}", part(name, size=1), manager="first").body["spec"]["name"] == "abc"
    assert "name" not in kube.apply(f"{THINGS}/{name}", part(name, size=1), manager="second").body["spec"]


def test_who_writes_without_applying_owns_too(kube: Kube) -> None:
    made = kube.create(f"{THINGS}?fieldManager=maker", thing())
    where, name = path(THINGS, made), made["metadata"]["name"]
    answer = kube.apply(where, part(name, size=2), manager="applier")
    assert answer.code == 409
    assert 'conflict with "maker"' in answer.message
    kube.apply(where, part(name, size=2), manager="applier", force=True)
    kube.ask("PATCH", f"{where}?fieldManager=patcher", {"spec": {"size": 3}}, content_type=MERGE)
    answer = kube.apply(where, part(name, size=2), manager="applier")
    assert answer.message == f'Apply failed with 1 conflict: conflict with "patcher" using {API_VERSION}: .spec.size'


def test_items_of_a_list_with_keys_belong_to_their_appliers(kube: Kube) -> None:
    name = unique("thing")
    where = f"{THINGS}/{name}"
    kube.apply(where, part(name, size=1, byName=[{"name": "a", "value": "1"}]), manager="first")
    both = kube.apply(where, part(name, byName=[{"name": "b", "value": "2"}], set=["x"]), manager="second").body
    assert both["spec"]["byName"] == [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]
    one = kube.apply(where, part(name, size=1), manager="first").body
    assert one["spec"]["byName"] == [{"name": "b", "value": "2"}]
    union = kube.apply(where, part(name, size=1, set=["y"]), manager="first").body["spec"]["set"]
    assert sorted(union) == ["x", "y"]


def test_status_is_applied_under_its_own_path(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    where, name = path(THINGS, made), made["metadata"]["name"]
    head = {"apiVersion": API_VERSION, "kind": "Thing", "metadata": {"name": name}}
    for owner in ("One", "Two"):
        conditions = [{"type": owner, "status": "True"}]
        body = {**head, "status": {"conditions": conditions}}
        written = kube.apply(f"{where}/status", body, manager=owner).body
    assert {entry["type"] for entry in written["status"]["conditions"]} == {"One", "Two"}
    missing = {**head, "metadata": {"name": "nobody"}, "status": {"phase": "x"}}
    assert kube.apply(f"{THINGS}/nobody/status", missing, manager="m").code == 404


def test_applied_object_is_validated(kube: Kube) -> None:
    name = unique("thing")
    assert kube.apply(f"{THINGS}/{name}", part(name, size=0), manager="m").code == 422
