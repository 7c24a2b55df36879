"""What Workspaces run, as a real API server takes it: each field, and its pods where only restricted ones may be."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.aks import CRDS
from fakes.cluster.api import ApiClient, ApiError
from fakes.cluster.interface import ControlPlane
from provisioner.workspace import services
from provisioner.workspace.nodes import claim_name, render_claim
from tests.kube import clear
from tests.unit.workspace_builders import sizing_of, workspace
from tests.unit.workspace_manifests import SERVED, TEMPLATE, TUNED, job, stateful_set

pytestmark = pytest.mark.real_only("field validation is there alone")

EXAMPLES = tuple(sorted((Path(__file__).parents[1] / "examples").glob("workspace-*.yaml")))
STRICT = "dryRun=All&fieldValidation=Strict"
APPLY = "application/apply-patch+yaml"
LONGEST = "c" * 52


@pytest.fixture(scope="module")
def admin(control_plane: ControlPlane) -> Iterator[ApiClient]:
    control_plane.apply(*CRDS)
    admin = control_plane.client()
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    admin.request("POST", "/api/v1/namespaces", body={"metadata": {"name": "ml", "labels": labels}})
    admin.request("POST", "/api/v1/namespaces/ml/serviceaccounts", body={"metadata": {"name": "runner"}})
    yield admin
    admin.request("DELETE", "/api/v1/namespaces/ml")
    asyncio.run(clear(control_plane))


def apply(admin: ApiClient, body: dict[str, Any], path: str) -> Any:
    where = f"{path}/{body['metadata']['name']}?{STRICT}&fieldManager=test&force=true"
    return admin.request("PATCH", where, body=body, content_type=APPLY)


def run(admin: ApiClient, body: dict[str, Any]) -> Any:
    """Have a pod of it made, as the StatefulSet or Job controller does."""
    template = body["spec"]["template"]
    spec = {**template["spec"], "serviceAccountName": "runner"}
    pod = {"metadata": {**template["metadata"], "name": f"{body['metadata']['name']}-0"}, "spec": spec}
    return admin.request("POST", f"/api/v1/namespaces/ml/pods?{STRICT}", body=pod)


def example(path: Path) -> dict[str, Any]:
    raw = yaml.safe_load(path.read_text())
    return {
        "name": raw["metadata"]["name"],
        "resource": raw["resource"],
        "spec": {part: raw[part] for part in ("inference", "tuning") if part in raw},
    }


VARIANTS = {
    **SERVED,
    **{f"tuning, {name}": changes for name, changes in TUNED.items()},
    **{path.stem: example(path) for path in EXAMPLES},
    "longest name": {"name": LONGEST},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_workload_and_its_pods_are_taken(admin: ApiClient, changes: dict[str, Any]) -> None:
    is_tuning = "tuning" in changes.get("spec", {})
    body = (job if is_tuning else stateful_set)(**changes)
    plural = "batch/v1/namespaces/ml/jobs" if is_tuning else "apps/v1/namespaces/ml/statefulsets"
    taken = apply(admin, body, f"/apis/{plural}")
    made = run(admin, body)

    assert taken["metadata"]["annotations"] == body["metadata"]["annotations"]
    assert made["status"]["qosClass"] == "Burstable"


def test_template_is_taken(admin: ApiClient) -> None:
    body = stateful_set(spec={"inference": {"template": TEMPLATE}})

    assert apply(admin, body, "/apis/apps/v1/namespaces/ml/statefulsets")["spec"]["replicas"] == 1


def test_namespace_takes_restricted_pods_alone(admin: ApiClient) -> None:
    with pytest.raises(ApiError, match=re.escape('violates PodSecurity "restricted')):
        run(admin, stateful_set(spec={"inference": {"template": TEMPLATE}}))


@pytest.mark.parametrize("name", ["chat", LONGEST])
@pytest.mark.parametrize("annotations", [{}, {"kaito.sh/enablelb": "true"}], ids=["inside", "outside"])
def test_services_are_taken(admin: ApiClient, name: str, annotations: dict[str, str]) -> None:
    for manifest in services.render(workspace(name, annotations=annotations)):
        apply(admin, dict(manifest.body), "/api/v1/namespaces/ml/services")


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_claims_are_taken(admin: ApiClient, changes: dict[str, Any]) -> None:
    subject = workspace(**changes)
    body = render_claim(subject, sizing_of(subject), claim_name(subject, 0))
    made = admin.request("POST", f"/apis/karpenter.sh/v1/nodeclaims?{STRICT}", body=body)

    assert made["spec"] == body["spec"]
