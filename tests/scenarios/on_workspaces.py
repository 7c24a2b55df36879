"""What scenarios of Workspaces share: both controllers on one AKS, and Workspaces as their authors write them."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from fakes.aks import FakeAks
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.interface import ControlPlane
from fakes.controller import ControllerProcess
from provisioner.apis import names
from tests.claims import A100
from tests.conftest import SCALE
from tests.kube import CLAIMS, NODES, WORKSPACES, ApiError, Kube, Object, condition, eventually
from tests.scenarios.running import running

EXAMPLES: Final = Path(__file__).parents[1] / "examples"
STATEFUL_SETS: Final = "/apis/apps/v1/namespaces/default/statefulsets"
JOBS: Final = "/apis/batch/v1/namespaces/default/jobs"
SERVICES: Final = "/api/v1/namespaces/default/services"
PODS: Final = "/api/v1/namespaces/default/pods"
CONFIG_MAPS: Final = "/api/v1/namespaces/default/configmaps"
SECRETS: Final = "/api/v1/namespaces/default/secrets"
MODEL: Final = "phi-4-mini-instruct"
# From a Workspace to its first answer goes by many hands, each on two busy cores.
PATIENCE: Final = 120.0
# What is written by hand or with the installation, and no scenario has left behind.
_KEPT: Final = ("kubernetes", "kube-root-ca.crt")
_LOG_TAIL: Final = 30_000
_NONE: Mapping[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What runs, and a client of each side."""

    aks: FakeAks
    kube: Kube
    claims: ControllerProcess
    workspaces: ControllerProcess

    async def create(self, body: Mapping[str, Any]) -> Object:
        """Create a Workspace as it is written."""
        return await self.kube.create(f"/apis/{body['apiVersion']}/namespaces/default/workspaces", body)

    async def wait(self, name: str, until: Callable[[Object], bool], *, patience: float = PATIENCE) -> Object:
        """Wait until the Workspace is there and satisfies; return it."""
        seen = await eventually(
            lambda: self.kube.get(WORKSPACES, name),
            until=lambda raw: raw is not None and until(raw),
            patience=patience,
            what=f"Workspace {name}",
        )
        assert seen is not None
        return seen

    async def wait_state(self, name: str, state: str, *, patience: float = PATIENCE) -> Object:
        """Wait until the Workspace is in a state of `status.state`."""
        return await self.wait(name, lambda raw: (raw.get("status") or {}).get("state") == state, patience=patience)

    async def wait_reason(self, name: str, kind: str, reason: str, *, patience: float = PATIENCE) -> Object:
        """Wait until a condition of the Workspace has a reason; return the condition."""
        raw = await self.wait(name, lambda raw: condition(raw, kind).get("reason") == reason, patience=patience)
        return condition(raw, kind)

    async def delete(self, name: str, *, patience: float = PATIENCE) -> None:
        """Delete a Workspace and wait until it is gone."""
        await self.kube.delete(WORKSPACES, name)
        await self.kube.wait_gone(WORKSPACES, name, patience=patience)

    async def claims_of(self, name: str) -> list[Object]:
        """Return the NodeClaims of a Workspace, by name."""
        found = await self.kube.items(f"{CLAIMS}?labelSelector={names.WORKSPACE_LABEL}={name}")
        return sorted(found, key=lambda claim: str(claim["metadata"]["name"]))

    async def nodes_of(self, name: str) -> list[Object]:
        """Return the Nodes of a Workspace."""
        return await self.kube.items(f"{NODES}?labelSelector={names.WORKSPACE_LABEL}={name}")

    async def pods_of(self, name: str) -> list[Object]:
        """Return the pods of a Workspace, by name."""
        found = await self.kube.items(f"{PODS}?labelSelector={names.WORKSPACE_LABEL}={name}")
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    async def wait_event(self, name: str, reason: str, *, kind: str = "Warning") -> str:
        """Wait for an Event about a Workspace that is there; return its message."""
        workspace = await self.kube.get(WORKSPACES, name)
        assert workspace is not None
        uid = workspace["metadata"]["uid"]

        async def told() -> list[str]:
            events = [e for e in await self.kube.events_of(name) if e["involvedObject"].get("uid") == uid]
            return [e["message"] for e in events if e["reason"] == reason and e["type"] == kind]

        return (await eventually(told, what=f"{kind} Event {reason} about {name}"))[-1]

    async def assert_nothing_left(self, name: str) -> None:
        """See that claims, pools and Nodes of a Workspace went before it; wait for what goes with it."""
        assert await self.claims_of(name) == []
        assert [node for node in await self.nodes_of(name) if names.NODEPOOL_LABEL in node["metadata"]["labels"]] == []
        for path in (STATEFUL_SETS, JOBS, SERVICES):
            selector = f"{path}?labelSelector={names.WORKSPACE_LABEL}={name}"
            await eventually(
                lambda selector=selector: self.kube.items(selector),  # type: ignore[misc]
                until=lambda left: not left,
                # The garbage collector of the real control plane looks for new kinds every half a minute.
                patience=PATIENCE,
                what=f"nothing is left at {selector}",
            )
        await eventually(lambda: self.pods_of(name), until=lambda left: not left, what=f"the pods of {name} are gone")


@asynccontextmanager
async def serving(
    control_plane: ControlPlane,
    *,
    folder: Path,
    azure: AzureSettings | None = None,
    settings: Mapping[str, str] = _NONE,
    prepare: Callable[[FakeAks, Kube], Awaitable[None]] | None = None,
) -> AsyncIterator[Serving]:
    """Run a whole AKS and both controllers; `settings` are those of the Workspaces' by their environment names."""
    azure = azure or AzureSettings(scale=SCALE)
    async with running(control_plane, log=folder / "claims.log", azure=azure, prepare=prepare) as world:
        try:
            environment = {**workspace_environment(control_plane), **settings}
            async with ControllerProcess(environment, log=folder / "workspaces.log", command="workspace") as workspaces:
                yield Serving(aks=world.aks, kube=world.kube, claims=world.controller, workspaces=workspaces)
            # Shown where a test has failed.
            sys.stdout.write(workspaces.log_text()[-_LOG_TAIL:])
        finally:
            world.aks.nodes.clear_pod_fault()
            await clear_workspaces(world.kube)


def workspace_environment(control_plane: ControlPlane) -> dict[str, str]:
    """Return the variables by which `provisioner workspace` finds the cluster, and that keep it off the network."""
    return {"KUBECONFIG": str(control_plane.kubeconfig), "HF_ENDPOINT": "none", "LOG_LEVEL": "debug"}


async def clear_workspaces(kube: Kube) -> None:
    """Take away what scenarios have left in the namespace."""
    for path in (WORKSPACES, STATEFUL_SETS, JOBS, SERVICES, PODS, CONFIG_MAPS, SECRETS):
        for item in await kube.items(path):
            name = item["metadata"]["name"]
            if name in _KEPT:
                continue
            if item["metadata"].get("finalizers"):
                await kube.patch(path, name, {"metadata": {"finalizers": None}})
            try:
                await kube.request(
                    "DELETE", f"{path}/{name}", body={"propagationPolicy": "Background", "gracePeriodSeconds": 0}
                )
            except ApiError as error:
                # It may have gone with another by now.
                if error.status != 404:
                    raise


def example(name: str) -> Object:
    """Return a published example."""
    loaded: Object = yaml.safe_load((EXAMPLES / f"workspace-phi-3{name}.yaml").read_text())
    return loaded


def inference(
    name: str,
    *,
    preset: str = MODEL,
    size: str = A100,
    annotations: Mapping[str, str] | None = None,
    **fields: Any,
) -> Object:
    """Return a Workspace that serves a preset; `fields` are further ones of `inference`, `count` one of `resource`."""
    resource: Object = {"labelSelector": {"matchLabels": {"apps": name}}}
    if size:
        resource["instanceType"] = size
    if "count" in fields:
        resource["count"] = fields.pop("count")
    return {
        "apiVersion": names.WORKSPACE_API_VERSION,
        "kind": names.WORKSPACE_KIND,
        "metadata": {"name": name, "namespace": "default", "annotations": dict(annotations or {})},
        "resource": resource,
        "inference": {"preset": {"name": preset}, **fields},
    }


def tuning(name: str, *, pushed_with: str = "push", **fields: Any) -> Object:
    """Return a Workspace that tunes a preset; `fields` are further ones of `tuning`."""
    return {
        "apiVersion": names.WORKSPACE_API_VERSION,
        "kind": names.WORKSPACE_KIND,
        "metadata": {"name": name, "namespace": "default"},
        "resource": {"instanceType": A100, "labelSelector": {"matchLabels": {"apps": name}}},
        "tuning": {
            "preset": {"name": MODEL},
            "method": "qlora",
            "input": {"urls": ["https://example.com/data.parquet"]},
            "output": {"image": "registry.example.com/adapter:1", "imagePushSecret": pushed_with},
            **fields,
        },
    }


def registry_secret(name: str) -> Object:
    """Return a Secret with which an image is pulled or pushed."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": "eyJhdXRocyI6e319"},
    }


def config_map(name: str, **data: str) -> Object:
    """Return a ConfigMap; the keys' `_yaml` stands for `.yaml`."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {key.replace("_yaml", ".yaml"): value for key, value in data.items()},
    }
