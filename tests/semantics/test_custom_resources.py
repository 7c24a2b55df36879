"""CustomResourceDefinitions: kinds come and go, and their schemas are what objects are held against."""

from functools import partial
from typing import Any

import pytest

from tests.semantics.client import MERGE, Kube, Object, eventually, names, unique
from tests.semantics.things import CRD, CRDS, GROUP, THINGS, crd, is_established, open_version, path, thing


def tried(kube: Kube, **spec: Any) -> Object:
    """Return a Thing's spec as it would be stored."""
    found: Object = kube.create(f"{THINGS}?dryRun=All", thing(spec=spec))["spec"]
    return found


def serve(kube: Kube, body: Object) -> str:
    """Have a kind served; return where its definition is."""
    kube.create(CRDS, body)
    where = path(CRDS, body)
    eventually(lambda: kube.get(where), until=is_established)
    spec = body["spec"]
    for version in spec["versions"]:
        everywhere = f"/apis/{GROUP}/{version['name']}/{spec['names']['plural']}"
        eventually(partial(kube.ask, "GET", everywhere), until=lambda answer: answer.code == 200)
    return where


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        pytest.param({"size": 0}, "spec.size in body should be greater than or equal to 1", id="minimum"),
        pytest.param({"size": 10}, "spec.size in body should be less than or equal to 9", id="maximum"),
        pytest.param({"size": "1"}, 'spec.size in body must be of type integer: "string"', id="integer"),
        pytest.param({"size": 1.5}, "spec.size in body must be of type integer", id="fraction"),
        pytest.param({"flag": "true"}, "spec.flag in body must be of type boolean", id="boolean"),
        pytest.param({"number": "1"}, "spec.number in body must be of type number", id="number"),
        pytest.param({"list": "a"}, "spec.list in body must be of type array", id="array"),
        pytest.param({"any": [1]}, "spec.any in body must be of type object", id="object"),
        pytest.param({"name": "a"}, "spec.name in body should be at least 2 chars long", id="minLength"),
        pytest.param({"name": "abcde"}, "spec.name: Too long: may not be more than 4 bytes", id="maxLength"),
        pytest.param({"name": "A-B"}, "spec.name in body should match '^[a-z]+$'", id="pattern"),
        pytest.param({"mode": "C"}, 'spec.mode: Unsupported value: "C": supported values: "A", "B"', id="enum"),
        pytest.param({"list": []}, "spec.list in body should have at least 1 items", id="minItems"),
        pytest.param({"list": ["a", "b", "c"]}, "spec.list: Too many: 3: must have at most 2 items", id="maxItems"),
        pytest.param({"set": ["a", "a"]}, 'spec.set[1]: Duplicate value: "a"', id="set"),
        pytest.param(
            {"byName": [{"name": "a"}, {"name": "a"}]}, 'spec.byName[1]: Duplicate value: {"name":"a"}', id="map"
        ),
        pytest.param({"byName": [{"value": "a"}]}, "spec.byName[0].name: Required value", id="key"),
        pytest.param({"port": 1.5}, "spec.port in body must be of type integer,string", id="int or string"),
        pytest.param({"counts": {"a": "b"}}, "spec.counts.a in body must be of type integer", id="values"),
        pytest.param({"when": "tomorrow"}, "spec.when in body must be of type date-time", id="time"),
        pytest.param({"size": None}, "spec.size: Required value", id="required"),
    ],
)
def test_object_against_its_schema_is_invalid(kube: Kube, spec: Object, says: str) -> None:
    answer = kube.ask("POST", THINGS, thing(spec=spec))
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert says in answer.message
    assert answer.message.startswith('Thing.semantics.example "')


def test_all_faults_are_told_at_once(kube: Kube) -> None:
    answer = kube.ask("POST", THINGS, thing(spec={"size": 0, "name": "a", "mode": "C"}))
    assert answer.fields() >= {"spec.size", "spec.name", "spec.mode"}


def test_object_within_its_schema_is_kept_as_it_is(kube: Kube) -> None:
    spec = {
        "size": 9,
        "name": "abcd",
        "mode": "B",
        "list": ["a", "a"],
        "set": ["a", "b"],
        "byName": [{"name": "a", "value": "x"}, {"name": "b"}],
        "port": "http",
        "any": {"deep": {"er": [1, None, {"a": 1}]}},
        "flag": False,
        "number": 1.5,
        "when": "2026-01-02T03:04:05Z",
        "counts": {"a": 1},
    }
    assert tried(kube, **spec) == spec


def test_defaults_are_filled_in(kube: Kube) -> None:
    assert tried(kube)["mode"] == "A"
    assert tried(kube, mode=None)["mode"] == "A"
    assert tried(kube, deep={})["deep"] == {"size": 3}
    assert "deep" not in tried(kube)


def test_unknown_fields_are_pruned_unless_preserved(kube: Kube) -> None:
    assert tried(kube, unknown=1, any={"unknown": 1}) == {"size": 1, "mode": "A", "any": {"unknown": 1}}
    answer = kube.ask("POST", f"{THINGS}?fieldValidation=Strict", thing(spec={"unknown": 1}))
    assert (answer.code, 'unknown field "spec.unknown"' in answer.message) == (400, True)


def test_null_stays_where_the_schema_allows_it(kube: Kube) -> None:
    assert tried(kube, maybe=None, name=None) == {"size": 1, "mode": "A", "maybe": None}


def test_field_with_a_rule_of_immutability_is_set_once(kube: Kube) -> None:
    made = kube.create(THINGS, thing(spec={"fixed": "a"}))
    assert kube.patch(path(THINGS, made), {"spec": {"fixed": "a", "size": 2}})["spec"]["size"] == 2
    answer = kube.ask("PATCH", path(THINGS, made), {"spec": {"fixed": "b"}}, content_type=MERGE)
    assert (answer.code, answer.fields()) == (422, {"spec.fixed"})
    assert "is immutable" in answer.message


def test_status_is_held_against_the_schema_too(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    body = {"status": {"conditions": [{"type": "Ready", "status": True}]}}
    answer = kube.ask("PATCH", f"{path(THINGS, made)}/status", body, content_type=MERGE)
    assert answer.code == 422
    assert "status.conditions[0].status" in answer.fields()


def test_definition_is_established(kube: Kube) -> None:
    found = kube.get(path(CRDS, CRD))
    assert is_established(found)
    assert found["status"]["acceptedNames"]["kind"] == "Thing"
    assert found["status"]["storedVersions"] == ["v1"]
    assert (found["spec"]["names"]["singular"], found["spec"]["names"]["listKind"]) == ("thing", "ThingList")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"metadata": {"name": "other"}}, "metadata.name", id="name"),
        pytest.param({"versions": [open_version(storage=False)]}, "spec.versions", id="no storage version"),
        pytest.param(
            {
                "versions": [
                    {**open_version(), "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {}}}}}
                ]
            },
            "spec.validation.openAPIV3Schema.properties[a].type",
            id="no type",
        ),
    ],
)
def test_odd_definition_is_invalid(kube: Kube, change: Object, field: str) -> None:
    body = crd("oddities", "Oddity", *change.get("versions", [open_version()]))
    answer = kube.ask("POST", CRDS, {**body, **({"metadata": change["metadata"]} if "metadata" in change else {})})
    assert answer.code == 422
    assert field in answer.fields()


def test_kind_comes_and_goes_with_its_definition(kube: Kube) -> None:
    place = f"/apis/{GROUP}/v1/comets"
    assert kube.ask("GET", place).code == 404
    where = serve(kube, crd("comets", "Comet", open_version(), scope="Cluster"))
    body = {"apiVersion": f"{GROUP}/v1", "kind": "Comet", "metadata": {"name": "halley"}, "any": "thing"}
    made = kube.create(place, body)
    assert (made["any"], "namespace" in made["metadata"]) == ("thing", False)
    kube.delete(where)
    kube.gone(where)
    eventually(lambda: kube.ask("GET", place), until=lambda answer: answer.code == 404)
    serve(kube, crd("comets", "Comet", open_version(), scope="Cluster"))
    assert names(kube.get(place)) == []


def test_definition_waits_for_its_objects(kube: Kube) -> None:
    where = serve(kube, crd("anchors", "Anchor", open_version()))
    place = f"/apis/{GROUP}/v1/namespaces/default/anchors"
    body = {"apiVersion": f"{GROUP}/v1", "kind": "Anchor", "metadata": {"name": "a", "finalizers": ["a.example/b"]}}
    kube.create(place, body)
    kube.delete(where)
    eventually(lambda: kube.get(f"{place}/a")["metadata"].get("deletionTimestamp"))
    assert "deletionTimestamp" in kube.get(where)["metadata"]
    kube.patch(f"{place}/a", {"metadata": {"finalizers": None}})
    kube.gone(where)


def test_one_object_is_served_in_every_version(kube: Kube) -> None:
    serve(kube, crd("shapes", "Shape", open_version("v1"), open_version("v1beta1", storage=False)))
    places = {v: f"/apis/{GROUP}/{v}/namespaces/default/shapes" for v in ("v1", "v1beta1")}
    body = {"apiVersion": f"{GROUP}/v1beta1", "kind": "Shape", "metadata": {"name": "s"}, "spec": {"a": 1}}
    assert kube.create(places["v1beta1"], body)["apiVersion"] == f"{GROUP}/v1beta1"
    seen = kube.get(f"{places['v1']}/s")
    assert (seen["apiVersion"], seen["spec"]) == (f"{GROUP}/v1", {"a": 1})
    (listed,) = kube.get(places["v1"])["items"]
    assert listed["apiVersion"] == f"{GROUP}/v1"


def test_table_has_the_columns_of_the_definition(kube: Kube) -> None:
    made = kube.create(THINGS, thing(unique("row"), labels={"topology.example/zone": "z1"}))
    conditions = [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]
    kube.patch(f"{path(THINGS, made)}/status", {"status": {"conditions": conditions}})
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    table = kube.ask("GET", path(THINGS, made), accept=accept).body
    assert table["kind"] == "Table"
    columns = [(column["name"], column["type"], column["priority"]) for column in table["columnDefinitions"]]
    wide = ("Zone", "string", 1)
    assert columns == [("Name", "string", 0), ("Size", "integer", 0), ("Ready", "string", 0), wide, ("Age", "date", 0)]
    (row,) = table["rows"]
    assert row["cells"][:4] == [made["metadata"]["name"], 1, "True", "z1"]
    assert row["object"]["metadata"]["name"] == made["metadata"]["name"]


def test_what_was_valid_before_may_stay_as_it_is(kube: Kube) -> None:
    def version(maximum: int) -> Object:
        number = {"type": "integer", "maximum": maximum}
        spec = {"type": "object", "properties": {"size": number, "other": number}}
        schema = {"type": "object", "properties": {"spec": spec}}
        return {**open_version(), "schema": {"openAPIV3Schema": schema}}

    where = serve(kube, crd("boxes", "Box", version(9)))
    boxes = f"/apis/{GROUP}/v1/namespaces/default/boxes"
    kube.create(boxes, {"apiVersion": f"{GROUP}/v1", "kind": "Box", "metadata": {"name": "b"}, "spec": {"size": 9}})
    kube.patch(where, {"spec": {"versions": [version(5)]}})
    small = {"apiVersion": f"{GROUP}/v1", "kind": "Box", "metadata": {"name": "c"}, "spec": {"size": 9}}
    eventually(lambda: kube.ask("POST", f"{boxes}?dryRun=All", small), until=lambda answer: answer.code == 422)
    assert kube.patch(f"{boxes}/b", {"spec": {"other": 1}})["spec"] == {"size": 9, "other": 1}
    answer = kube.ask("PATCH", f"{boxes}/b", {"spec": {"size": 8}}, content_type=MERGE)
    assert (answer.code, answer.fields()) == (422, {"spec.size"})
