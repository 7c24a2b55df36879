"""Carries a Step of a Workspace out: the only part of the reconciler that writes.

Steps are safe to repeat and to lose: whatever fails here ends the step, and the next look finds the state as it then
is. Own writes go into the store at once, so that the next look is not one at the past.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.nodeclaim import parse_nodeclaim
from provisioner.apis.workspace import Workspace, parse_workspace
from provisioner.kube.errors import Conflict, Forbidden, Gone, Rejected
from provisioner.kube.events import EventRecorder, ObjectRef
from provisioner.kube.metrics import Registry
from provisioner.kube.objects import Kind, Objects
from provisioner.workspace.digest import ANNOTATION
from provisioner.workspace.store import Store, is_claim_of
from provisioner.workspace.view import (
    JOB,
    NODE_CLAIM,
    SERVICE,
    STATEFUL_SET,
    WORKSPACE,
    Doomed,
    Manifest,
    Notice,
    Refusal,
    Step,
    View,
)

_log: Final = logging.getLogger(__name__)

# Whose fields are ours in objects that we apply.
MANAGER: Final = "gpu-provisioner-workspace"
NODE: Final = Kind(api_version="v1", kind="Node", plural="nodes", is_namespaced=False)


def reference(workspace: Workspace) -> ObjectRef:
    """Return what an Event about the Workspace refers to."""
    return ObjectRef(
        kind=names.WORKSPACE_KIND,
        name=workspace.name,
        uid=workspace.uid,
        api_version=names.WORKSPACE_API_VERSION,
        namespace=workspace.namespace,
    )


class Actuator:
    """Carries out Steps. Keeps the digests of the Services that were applied, which nobody watches, and refusals."""

    def __init__(self, *, objects: Objects, store: Store, recorder: EventRecorder, metrics: Registry) -> None:
        self._objects = objects
        self._store = store
        self._recorder = recorder
        self._services: dict[str, dict[str, str]] = {}
        self._refusals: dict[str, Refusal] = {}
        self._writes = metrics.counter(
            "gpu_provisioner_workspace_writes_total",
            text="Objects that were written for Workspaces, by kind and verb.",
            labels=("kind", "verb"),
        )

    def services(self, workspace: Workspace) -> Mapping[str, str]:
        """Return the digests of the Workspace's Services by name, as last applied."""
        return self._services.get(workspace.uid, {})

    def refusal(self, workspace: Workspace) -> Refusal | None:
        """Return what the API server has refused, and is to be asked for again."""
        return self._refusals.get(workspace.uid)

    def forget_services(self) -> None:
        """Have all Services applied once more: somebody may have changed or deleted them."""
        self._services.clear()

    def forget(self, uid: str) -> None:
        """Drop what was kept about a Workspace that is gone."""
        self._services.pop(uid, None)
        self._refusals.pop(uid, None)

    async def carry_out(self, view: View, step: Step) -> bool:
        """Do what the step says. Returns whether the Workspace is worth another look at once. Raises KubeError."""
        workspace = view.workspace
        if step.metadata is not None:
            workspace = self._take(
                await self._objects.patch(
                    WORKSPACE,
                    workspace.namespace,
                    workspace.name,
                    {"metadata": dict(step.metadata)},
                    resource_version=workspace.resource_version,
                )
            )
        is_news = step.metadata is not None or bool(step.node_patches)
        if step.status is not None:
            before = workspace.resource_version
            workspace = await self._write_status(workspace, step.status)
            # Another CRD than ours may drop what it does not know, each time anew.
            is_news |= workspace.resource_version != before
        for notice in step.notices:
            self._tell(workspace, notice)
        for patch in step.node_patches:
            node = patch.node
            raw = await self._objects.patch(NODE, "", node.name, patch.patch, resource_version=node.resource_version)
            self._store.nodes.put(raw)
        refused = self._refusals.pop(workspace.uid, None)
        for body in step.claims:
            is_news |= await self._create_claim(workspace, body)
        for manifest in step.manifests:
            is_news |= await self._apply(workspace, manifest)
        for doomed in step.deletions:
            is_news |= await self._delete(workspace, doomed)
        if step.release:
            return await self._release(workspace)
        return is_news or refused != self._refusals.get(workspace.uid)

    def _take(self, raw: dict[str, Any]) -> Workspace:
        self._store.workspaces.put(raw)
        return parse_workspace(raw)

    async def _create_claim(self, workspace: Workspace, body: Mapping[str, Any]) -> bool:
        """Create a claim; returns whether there is one that was not there to see."""
        name = body["metadata"]["name"]
        try:
            raw = await self._objects.create(NODE_CLAIM, body)
        except Conflict:
            # Ours, made before a crash or not told of yet. A look at it brings it in.
            found = await self._objects.get(NODE_CLAIM, "", name)
            if found is None:
                return True
            if not is_claim_of(workspace, parse_nodeclaim(found)):
                return self._refused(workspace, NODE_CLAIM, name, "one of that name is somebody else's")
            return self._store.claims.put(found)
        except (Rejected, Forbidden) as error:
            return self._refused(workspace, NODE_CLAIM, name, error.told)
        self._store.claims.put(raw)
        self._writes.inc(kind="NodeClaim", verb="create")
        _log.info("NodeClaim created", extra={"workspace": workspace.key, "claim": name})
        self._tell(workspace, Notice(reason="NodeClaimCreated", message=f"NodeClaim {name} is created."))
        return True

    async def _apply(self, workspace: Workspace, manifest: Manifest) -> bool:
        """Apply a manifest; returns whether there is something new to see."""
        name = manifest.body["metadata"]["name"]
        existing = await self._objects.get(manifest.kind, workspace.namespace, name)
        if existing is not None and not _is_controlled(existing, by=workspace):
            # Not to be taken over: it would go with the Workspace.
            return self._refused(workspace, manifest.kind, name, "there is one that is not of this Workspace")
        if existing is not None and ANNOTATION not in (existing["metadata"].get("annotations") or {}):
            if manifest.kind is JOB:
                return self._refused(workspace, manifest.kind, name, "another controller has made it; delete it first")
            if manifest.kind is STATEFUL_SET:
                # KAITO's: its command, probes and volumes would stay beside ours.
                uid = existing["metadata"]["uid"]
                await self._delete(
                    workspace, Doomed(kind=manifest.kind, namespace=workspace.namespace, name=name, uid=uid)
                )
                return True
            # KAITO's too, which has the ports of Ray. Not made anew: it would lose its address.
            await self._objects.patch(
                manifest.kind,
                workspace.namespace,
                name,
                {"spec": {"ports": manifest.body["spec"]["ports"]}},
                resource_version=existing["metadata"]["resourceVersion"],
            )
        try:
            raw = await self._objects.apply(manifest.kind, manifest.body, manager=MANAGER)
        except (Rejected, Forbidden) as error:
            # What the author has written into a template or a volume source, or a policy of the cluster.
            return self._refused(workspace, manifest.kind, name, error.told)
        if manifest.kind is SERVICE:
            digest = manifest.body["metadata"]["annotations"][ANNOTATION]
            self._services.setdefault(workspace.uid, {})[name] = digest
        elif manifest.kind is STATEFUL_SET:
            self._store.stateful_sets.put(raw)
        elif manifest.kind is JOB:
            self._store.jobs.put(raw)
        self._writes.inc(kind=manifest.kind.kind, verb="apply")
        _log.info("applied", extra={"workspace": workspace.key, "kind": manifest.kind.kind, "object": name})
        return True

    def _refused(self, workspace: Workspace, kind: Kind, name: str, told: str) -> bool:
        """Remember what is refused: the next look says it in the status, and each one tries it again. Returns False."""
        self._refusals[workspace.uid] = Refusal(kind=kind, name=name, message=told)
        _log.warning("refused", extra={"workspace": workspace.key, "kind": kind.kind, "object": name, "error": told})
        return False

    async def _delete(self, workspace: Workspace, doomed: Doomed) -> bool:
        """Delete an object; returns whether it was gone already, which is news."""
        if not await self._objects.delete(doomed.kind, doomed.namespace, doomed.name, uid=doomed.uid):
            # The watch may never tell: of one that was made before it began, and was gone before that too.
            self._store.forget(doomed)
            return True
        self._writes.inc(kind=doomed.kind.kind, verb="delete")
        _log.info("deleted", extra={"workspace": workspace.key, "kind": doomed.kind.kind, "object": doomed.name})
        return False

    async def _write_status(self, workspace: Workspace, status: Mapping[str, Any]) -> Workspace:
        try:
            return self._take(
                await self._objects.patch(
                    WORKSPACE,
                    workspace.namespace,
                    workspace.name,
                    {"status": dict(status)},
                    resource_version=workspace.resource_version,
                    status=True,
                )
            )
        except Rejected as error:
            if not workspace.is_deleting:
                raise
            # Stored under an older CRD it may fail validation on every write; it must go all the same.
            _log.warning("status refused by the API server", extra={"workspace": workspace.key, "error": str(error)})
            return workspace

    async def _release(self, workspace: Workspace) -> bool:
        """Let the Workspace go, unless it has claims that the watch has not told of. Returns whether it has."""
        selector = f"{names.WORKSPACE_LABEL}={workspace.name},{names.WORKSPACE_NAMESPACE_LABEL}={workspace.namespace}"
        try:
            left, _ = await self._objects.list(NODE_CLAIM, labels=selector)
        except Gone:
            # Without the kind there are no claims.
            left = []
        for raw in left:
            self._store.claims.put(raw)
        if any(is_claim_of(workspace, parse_nodeclaim(raw)) for raw in left):
            # Made by a request whose answer was lost.
            return True
        others = [name for name in workspace.finalizers if name != names.WORKSPACE_FINALIZER]
        raw = await self._objects.patch(
            WORKSPACE,
            workspace.namespace,
            workspace.name,
            {"metadata": {"finalizers": others}},
            resource_version=workspace.resource_version,
        )
        if raw["metadata"].get("finalizers"):
            self._store.workspaces.put(raw)
        else:
            self._store.workspaces.remove(workspace.key, workspace.uid)
        self.forget(workspace.uid)
        _log.info("Workspace released: nothing is left of it", extra={"workspace": workspace.key})
        return False

    def _tell(self, workspace: Workspace, notice: Notice) -> None:
        self._recorder.record(
            reference(workspace),
            type="Warning" if notice.is_warning else "Normal",
            reason=notice.reason,
            message=notice.message,
        )
        level = logging.WARNING if notice.is_warning else logging.INFO
        _log.log(level, notice.message, extra={"workspace": workspace.key, "reason": notice.reason})


def _is_controlled(raw: Mapping[str, Any], *, by: Workspace) -> bool:
    owners = raw["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner.get("uid") == by.uid for owner in owners)
