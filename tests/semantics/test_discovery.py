"""How clients find their way: versions, groups, resources and schemas."""

import pytest

from tests.semantics.client import Kube, Object, eventually
from tests.semantics.things import API_VERSION, GROUP


@pytest.mark.parametrize("place", ["/healthz", "/livez", "/readyz"])
def test_server_is_well(kube: Kube, place: str) -> None:
    answer = kube.ask("GET", place)
    assert (answer.code, answer.body) == (200, "ok")


def test_version_is_told(kube: Kube) -> None:
    version = kube.get("/version")
    assert version["major"] == "1"
    assert version["gitVersion"].startswith(f"v1.{version['minor']}.")


def test_groups_are_listed(kube: Kube) -> None:
    assert kube.get("/api")["versions"] == ["v1"]
    groups = {group["name"]: group["preferredVersion"]["groupVersion"] for group in kube.get("/apis")["groups"]}
    assert groups[GROUP] == API_VERSION
    expected = {
        "apps": "apps/v1",
        "batch": "batch/v1",
        "policy": "policy/v1",
        "coordination.k8s.io": "coordination.k8s.io/v1",
    }
    assert expected.items() <= groups.items()
    assert kube.get("/apis/apps")["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}


def test_resources_of_a_group_are_listed(kube: Kube) -> None:
    listed = kube.get(f"/apis/{API_VERSION}")
    resources: dict[str, Object] = {entry["name"]: entry for entry in listed["resources"]}
    assert set(resources) >= {"things", "things/status"}
    found = resources["things"]
    assert (found["kind"], found["namespaced"], found["singularName"]) == ("Thing", True, "thing")
    assert (found["shortNames"], found["categories"]) == (["th"], ["semantic"])
    assert {"create", "get", "list", "watch", "patch", "delete", "deletecollection"} <= set(found["verbs"])


def test_core_resources_are_listed(kube: Kube) -> None:
    resources = {entry["name"]: entry for entry in kube.get("/api/v1")["resources"]}
    assert (resources["nodes"]["namespaced"], resources["pods"]["namespaced"]) == (False, True)
    assert resources["pods"]["shortNames"] == ["po"]
    assert resources["pods/eviction"]["kind"] == "Eviction"
    assert "configmaps/status" not in resources


def test_schemas_are_published(kube: Kube) -> None:
    place = f"apis/{API_VERSION}"
    # The schema of a custom resource is published some time after the resource is served.
    index = eventually(lambda: kube.get("/openapi/v3")["paths"], until=lambda paths: place in paths)
    assert index[place]["serverRelativeURL"].startswith(f"/openapi/v3/{place}?hash=")
    document = kube.get(f"/openapi/v3/{place}")
    kind = [{"group": GROUP, "version": "v1", "kind": "Thing"}]
    schemas = document["components"]["schemas"].values()
    (schema,) = [entry for entry in schemas if entry.get("x-kubernetes-group-version-kind") == kind]
    assert schema["description"] == "A Thing has a size."
    assert schema["properties"]["spec"]["properties"]["size"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert "api/v1" in index
