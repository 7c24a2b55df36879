"""What a real API server makes of Workspaces: both versions, the published examples, and what is refused at once."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.aks import CRDS
from fakes.cluster.api import ApiClient, ApiError
from fakes.cluster.interface import ControlPlane
from tests.kube import clear

pytestmark = pytest.mark.real_only("rules in CEL are evaluated there alone")

EXAMPLES = tuple(sorted((Path(__file__).parents[1] / "examples").glob("workspace-*.yaml")))
PATH = "/apis/kaito.sh/{version}/namespaces/default/workspaces"
MERGE = "application/merge-patch+json"
SELECTOR = {"labelSelector": {"matchLabels": {"apps": "chat"}}}
PRESET = {"preset": {"name": "phi-4"}}
OUTPUT = {"image": "registry.example/adapter:1", "imagePushSecret": "push"}
TUNING: dict[str, Any] = {
    "preset": {"name": "phi-4"},
    "method": "qlora",
    "input": {"urls": ["https://data.example/a.parquet"]},
}


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    control_plane.apply(*CRDS)
    yield control_plane
    asyncio.run(clear(control_plane))


@pytest.fixture(scope="module")
def admin(cluster: ControlPlane) -> ApiClient:
    return cluster.client()


def adapter(name: str, **more: Any) -> dict[str, Any]:
    return {"source": {"name": name, "image": "registry.example/a:1"}, **more}


def workspace(name: str = "tried", *, resource: dict[str, Any] = SELECTOR, **parts: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": name},
        "resource": resource,
        **parts,
    }


def tuning(**changes: Any) -> dict[str, Any]:
    merged = {**TUNING, "output": OUTPUT, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def post(admin: ApiClient, body: dict[str, Any], *, dry: bool = True) -> Any:
    version = body["apiVersion"].rpartition("/")[2]
    path = PATH.format(version=version) + ("?dryRun=All&fieldValidation=Strict" if dry else "?fieldValidation=Strict")
    return admin.request("POST", path, body=body)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_published_example_is_taken_as_it_is(admin: ApiClient, path: Path) -> None:
    post(admin, yaml.safe_load(path.read_text()))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3


def test_both_versions_read_and_write_the_same_object(cluster: ControlPlane, admin: ApiClient) -> None:
    body = workspace("both", inference={**PRESET, "adapters": [adapter("one", strength="0.5")]})
    written = post(admin, {**body, "apiVersion": "kaito.sh/v1alpha1"}, dry=False)
    read = admin.request("GET", PATH.format(version="v1beta1") + "/both")
    shown = cluster.run_kubectl("get", "workspaces.v1alpha1.kaito.sh", "both", "--output=json")

    assert written["apiVersion"] == "kaito.sh/v1alpha1"
    assert {**read, "apiVersion": ""} == {**written, "apiVersion": ""}
    assert json.loads(shown)["inference"] == body["inference"]


@pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
def test_columns(cluster: ControlPlane, admin: ApiClient, version: str) -> None:
    name = f"columns-{version}"
    # Which size it has is told for those as well that name none.
    post(admin, workspace(name, inference=PRESET), dry=False)
    conditions = [
        {
            "type": kind,
            "status": "True",
            "reason": "Because",
            "message": "",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }
        for kind in ("ResourceReady", "InferenceReady", "JobStarted", "WorkspaceSucceeded", "WorkspaceReady")
    ]
    admin.request(
        "PATCH",
        f"{PATH.format(version='v1beta1')}/{name}/status",
        body={
            "status": {
                "conditions": conditions,
                "instanceTypes": ["Standard_NC6s_v3"],
                "targetNodeCount": 2,
                "state": "Ready",
            }
        },
        content_type=MERGE,
    )
    table = cluster.run_kubectl("get", f"workspaces.{version}.kaito.sh", name)
    heads, row = (line.split() for line in table.strip().splitlines())
    shown = dict(zip(heads, row, strict=False))

    assert shown["INSTANCE"] == "Standard_NC6s_v3"
    assert shown["WORKSPACEREADY"] == shown["RESOURCEREADY"] == shown["INFERENCEREADY"] == "True"
    assert ("STATE" in heads) is (version == "v1beta1")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "either inference or tuning must be specified"),
        ({"inference": PRESET, "tuning": tuning()}, "either inference or tuning must be specified"),
        ({"inference": {}}, "inference needs a preset or a template"),
        ({"inference": {**PRESET, "template": {"spec": {}}}}, "inference needs a preset or a template"),
        ({"inference": {"preset": {}}}, "inference.preset.name: Required value"),
        ({"inference": {**PRESET, "adapters": [adapter("a"), adapter("a")]}}, "need names of their own"),
        ({"inference": {**PRESET, "adapters": [adapter(f"a{n}") for n in range(11)]}}, "must have at most 10 items"),
        ({"inference": {**PRESET, "adapters": [adapter("a", strength="2")]}}, "strength"),
        ({"inference": {**PRESET, "adapters": [adapter("a", strength="strong")]}}, "strength"),
        ({"inference": {**PRESET, "adapters": [{"source": {"name": "a"}}]}}, "an image or a volume, and one of them"),
        ({"inference": {**PRESET, "adapters": [adapter("Not/A/Name")]}}, "needs a name in lower case"),
        ({"tuning": tuning(method="full")}, "tuning.method"),
        ({"tuning": tuning(preset=None)}, "tuning.preset is missing"),
        ({"tuning": tuning(input={})}, "tuning.input needs urls, an image or a volumeSource"),
        ({"tuning": tuning(input={"urls": ["ftp://data.example/a"]})}, "http or https"),
        ({"tuning": tuning(input={**TUNING["input"], "image": "registry.example/data:1"})}, "and one of them"),
        ({"tuning": tuning(output={"image": "registry.example/a:1"})}, "needs an imagePushSecret"),
        ({"tuning": tuning(output={})}, "tuning.output needs an image or a volumeSource"),
        ({"tuning": tuning(output=None)}, "tuning.output: Required value"),
        ({"inference": PRESET, "resource": {}}, "resource.labelSelector: Required value"),
        ({"inference": PRESET, "resource": {**SELECTOR, "count": 0}}, "resource.count"),
        ({"inference": PRESET, "spec": {}}, 'unknown field "spec"'),
    ],
)
def test_what_can_never_be_served_is_refused_at_once(admin: ApiClient, parts: dict[str, Any], said: str) -> None:
    with pytest.raises(ApiError) as refused:
        post(admin, workspace(**parts))

    assert said in str(refused.value)


@pytest.mark.parametrize(
    "parts",
    [
        {"inference": {"template": {"spec": {"containers": [{"name": "own", "image": "registry.example/own:1"}]}}}},
        {"inference": {**PRESET, "adapters": [adapter("a", strength="0"), adapter("b", strength="1.0")]}},
        {"inference": {"preset": {"name": "org/Model_7.B", "presetOptions": {"modelAccessSecret": "token"}}}},
        {"tuning": tuning(method="LoRA", input={"volumeSource": {"hostPath": {"path": "/data"}}})},
        {"tuning": tuning(output={"volumeSource": {"persistentVolumeClaim": {"claimName": "out"}}})},
    ],
)
def test_what_can_be_served_is_taken(admin: ApiClient, parts: dict[str, Any]) -> None:
    post(admin, workspace(**parts))


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"resource": {"count": 3}}, "resource.count is immutable"),
        ({"resource": {"instanceType": None}}, "resource.instanceType is immutable"),
        ({"resource": {"labelSelector": {"matchLabels": {"apps": "other"}}}}, "resource.labelSelector is immutable"),
        ({"inference": {"preset": {"name": "phi-3"}}}, "inference.preset is immutable"),
        ({"inference": {"preset": None, "template": {"spec": {}}}}, "cannot take each other's place"),
        ({"inference": None, "tuning": tuning()}, "inference and tuning cannot take each other's place"),
    ],
)
def test_what_cannot_change_is_said_to_be_immutable(admin: ApiClient, patch: dict[str, Any], said: str) -> None:
    resource = {**SELECTOR, "count": 2, "instanceType": "Standard_NC24ads_A100_v4"}
    path = f"{PATH.format(version='v1beta1')}/fixed"
    if admin.request("GET", PATH.format(version="v1beta1") + "?fieldSelector=metadata.name=fixed")["items"] == []:
        post(admin, workspace("fixed", resource=resource, inference=PRESET), dry=False)
    with pytest.raises(ApiError) as refused:
        admin.request("PATCH", path, body=patch, content_type=MERGE)

    assert said in str(refused.value)


def test_adapters_config_and_template_may_change(admin: ApiClient) -> None:
    post(admin, workspace("changes", inference=PRESET), dry=False)
    path = f"{PATH.format(version='v1beta1')}/changes"
    changed = admin.request(
        "PATCH", path, body={"inference": {"config": "c", "adapters": [adapter("a")]}}, content_type=MERGE
    )

    assert changed["inference"]["config"] == "c"
