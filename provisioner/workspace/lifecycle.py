"""The whole life of a Workspace as one pure function: from what is seen to what is to be done."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.conditions import Condition
from provisioner.apis.node import Node
from provisioner.workspace import checks, deletion, inference, nodes, references, services, status, tuning
from provisioner.workspace.conditions import (
    INFERENCE_READY,
    JOB_STARTED,
    NODE_CLAIM_READY,
    PROGRESS,
    RESOURCE_READY,
    SUCCEEDED,
    Conditions,
)
from provisioner.workspace.config_map import max_model_len
from provisioner.workspace.digest import ANNOTATION
from provisioner.workspace.nodes import Holdings
from provisioner.workspace.recorded_model import to_status
from provisioner.workspace.sizing import size
from provisioner.workspace.view import (
    JOB,
    NODE_CLAIM,
    Doomed,
    Manifest,
    Model,
    NodePatch,
    Notice,
    Problem,
    Sizing,
    Step,
    View,
    Workload,
)

# What a Workspace refers to is not watched: ConfigMaps and Secrets are many, and change seldom.
_LOOK_AGAIN: Final = timedelta(seconds=30)
# Pods are not watched either; while a Workspace waits for its own they are looked at this often.
_SOON: Final = timedelta(seconds=3)


def reconcile(view: View) -> Step:
    """Return the next step for the Workspace; an empty Step where there is nothing to do. No I/O, no clock."""
    workspace = view.workspace
    if workspace.is_deleting:
        return deletion.delete(view) if names.WORKSPACE_FINALIZER in workspace.finalizers else Step()
    if names.WORKSPACE_FINALIZER not in workspace.finalizers:
        return Step(metadata={"finalizers": [*workspace.finalizers, names.WORKSPACE_FINALIZER]})
    return _Round(view).step()


class _Round:
    """One look at a Workspace that is to live."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._workspace = view.workspace
        self._conditions = Conditions(view.workspace.conditions, generation=view.workspace.generation, now=view.now)
        self._status: dict[str, Any] = {}
        self._notices: list[Notice] = []
        # Whether the Job was made for another wish, and is none of this one's.
        self._is_stale = False

    def step(self) -> Step:
        view, workspace = self._view, self._workspace
        if self._is_over:
            return Step()
        problem = checks.check(workspace) or references.missing(workspace, view.inputs)
        if problem is not None:
            return self._refuse(problem)
        if isinstance(view.model, Problem):
            return self._refuse(view.model)
        if view.model is None and (named := references.model_name(workspace)):
            status.await_model(self._conditions, named)
            self._status["state"] = self._stated(status.not_ready(workspace.state))
            return self._finish(again_after=_LOOK_AGAIN)
        sizing = self._size(view.model)
        if isinstance(sizing, Problem):
            return self._refuse(sizing)
        held = nodes.hold(
            workspace,
            sizing=sizing,
            claims=view.claims,
            nodes=view.nodes,
            writes_claims=view.settings.writes_claims,
        )
        self._record(view.model, sizing, held)
        enough = status.tell_resources(self._conditions, held, sizing=sizing, writes_claims=view.settings.writes_claims)
        manifests, deletions = self._workload(view.model, sizing, enough=enough)
        self._status["state"] = self._tell(enough=enough)
        claims = () if self._is_done else held.missing
        if view.refusal is not None and (claims or manifests):
            status.tell_refusal(self._conditions, view.refusal)
            self._status["state"] = self._stated(status.not_ready(workspace.state))
        is_well = self._status["state"] in ("Ready", "Succeeded")
        return self._finish(
            node_patches=tuple(_take(view, node) for node in held.taken),
            claims=claims,
            manifests=manifests,
            deletions=(*deletions, *self._surplus(held)),
            again_after=_LOOK_AGAIN if is_well or not enough or view.refusal is not None else _SOON,
        )

    def _tell(self, *, enough: bool) -> str:
        """Say what becomes of the workload. Returns the state."""
        view, workspace = self._view, self._workspace
        if workspace.tuning is not None:
            workload, state = (None, "") if self._is_stale else (view.workload, workspace.state)
            return status.tell_tuning(self._conditions, workload, view.pods, enough=enough, state=state)
        self._status["endpoint"] = services.endpoint(workspace)
        return status.tell_inference(self._conditions, view.workload, view.pods, enough=enough, state=workspace.state)

    def _stated(self, state: str) -> str:
        """Return that state, but none that a tuning would go back to."""
        was = self._workspace.state
        return was if self._workspace.tuning is not None and was in ("Running", "Succeeded", "Failed") else state

    @property
    def _is_over(self) -> bool:
        """Tell whether a tuning has ended well, and somebody has cleared its Job away."""
        workspace = self._workspace
        told = workspace.condition(SUCCEEDED)
        return (
            workspace.tuning is not None
            and self._view.workload is None
            and told is not None
            and told.status == "True"
            and told.observed_generation == workspace.generation
        )

    @property
    def _is_done(self) -> bool:
        """Tell whether a tuning has come to its end: its Nodes are not replaced any more."""
        workload = self._view.workload
        if workload is None or workload.kind is not JOB or self._is_stale:
            return False
        return bool(workload.succeeded or workload.is_failed)

    def _surplus(self, held: Holdings) -> list[Doomed]:
        return [Doomed(kind=NODE_CLAIM, namespace="", name=claim.name, uid=claim.uid) for claim in held.surplus]

    def _refuse(self, problem: Problem) -> Step:
        """Say why nothing more is done for the Workspace; what runs of it goes on, and is told of."""
        if self._is_done:
            if self._workspace.state in ("Succeeded", "Failed"):
                return Step(again_after=_LOOK_AGAIN)
            self._status["state"] = self._tell(enough=True)
            return self._finish(again_after=_LOOK_AGAIN)
        if self._view.workload is not None:
            self._tell(enough=True)
        status.refuse(self._conditions, problem)
        self._status["state"] = self._stated(status.not_ready(self._workspace.state))
        return self._finish(again_after=_LOOK_AGAIN)

    def _size(self, model: Model | None) -> Sizing | Problem:
        workspace = self._workspace
        context: int | Problem = 0
        if workspace.inference is not None and workspace.inference.config:
            name = workspace.inference.config
            context = max_model_len(name, self._view.inputs.configs[name])
        if isinstance(context, Problem):
            return context
        brought = nodes.brought_type(workspace, self._view.nodes, sizes=self._view.sizes)
        is_open = not (brought or workspace.resource.instance_type or workspace.instance_types)
        if is_open and not self._view.settings.writes_claims:
            # What somebody will bring decides, and it is decided once.
            return Problem(
                reason="NodeNotReady",
                message="No Node is there that resource.labelSelector chooses, and none is asked for here "
                "(WORKSPACE_NODES=brought). Label Nodes with GPUs for it.",
            )
        return size(
            workspace,
            model=model,
            sizes=self._view.sizes,
            now=self._view.now,
            context=context,
            brought=brought,
        )

    def _record(self, model: Model | None, sizing: Sizing, held: Holdings) -> None:
        """Write down what was decided, before anything is made by it."""
        if model is not None and model.preset is None:
            self._status["model"] = to_status(model.facts)
        self._status["targetNodeCount"] = sizing.nodes
        self._status["instanceTypes"] = list(sizing.instance_types)
        self._status["sizing"] = sizing.why
        self._status["workerNodes"] = sorted(node.name for node in (*held.ready, *held.unready))
        if sizing.size is not None and sizing.size.retired and not self._workspace.target_node_count:
            self._notices.append(Notice(reason="RetiredInstanceType", message=sizing.why, is_warning=True))

    def _workload(
        self, model: Model | None, sizing: Sizing, *, enough: bool
    ) -> tuple[tuple[Manifest, ...], tuple[Doomed, ...]]:
        """Return what is to be applied, and what has to go first."""
        view, workspace = self._view, self._workspace
        image, secrets, hub = view.settings.image, view.settings.pull_secrets, view.settings.hub
        if workspace.tuning is not None:
            if model is None:
                return (), ()
            job = tuning.render(
                workspace, model=model, sizing=sizing, inputs=view.inputs, image=image, pull_secrets=secrets, hub=hub
            )
            # One without a digest is another controller's, whose wishes we cannot tell.
            self._is_stale = view.workload is not None and view.workload.digest not in ("", _digest_of(job))
            return _replaced(view.workload, job, enough=enough, is_stale=self._is_stale)
        wanted = services.render(workspace)
        changed = [
            manifest
            for manifest in wanted
            if view.services.get(manifest.body["metadata"]["name"]) != _digest_of(manifest)
        ]
        server = inference.render(
            workspace, model=model, sizing=sizing, inputs=view.inputs, image=image, pull_secrets=secrets, hub=hub
        )
        present = view.workload
        if present is None:
            return (*changed, *((server,) if enough else ())), ()
        if present.digest == _digest_of(server) or present.is_deleting:
            return tuple(changed), ()
        if max(sizing.nodes, present.wanted) > 1 and present.digest:
            # The pods of a group are of one mind or do not come up: a StatefulSet would replace them one by one, and
            # wait for a worker of the new template that waits for a leader of the old.
            return tuple(changed), (_doomed(present),)
        return (*changed, server), ()

    def _finish(
        self,
        *,
        node_patches: tuple[NodePatch, ...] = (),
        claims: tuple[Mapping[str, Any], ...] = (),
        manifests: tuple[Manifest, ...] = (),
        deletions: tuple[Doomed, ...] = (),
        again_after: timedelta,
    ) -> Step:
        conditions = self._conditions.result()
        changed = dict(self._status)
        stored = self._workspace
        if changed.get("targetNodeCount") == stored.target_node_count:
            changed.pop("targetNodeCount")
        for name, value in (
            ("instanceTypes", list(stored.instance_types)),
            ("workerNodes", list(stored.worker_nodes)),
            ("state", stored.state),
            ("sizing", stored.sizing),
            ("endpoint", stored.endpoint),
            ("model", dict(stored.model)),
        ):
            if changed.get(name) == value:
                changed.pop(name)
        if conditions != stored.conditions:
            changed["conditions"] = [condition.to_dict() for condition in conditions]
        # What was decided is written before anything is made by it: a restart must not decide otherwise.
        decides = stored.target_node_count == 0 and "targetNodeCount" in changed
        return Step(
            node_patches=() if decides else node_patches,
            claims=() if decides else claims,
            manifests=() if decides else manifests,
            deletions=() if decides else deletions,
            status=changed or None,
            notices=(*self._notices, *_notices(stored.conditions, conditions)),
            again_after=again_after,
        )


def _take(view: View, node: Node) -> NodePatch:
    labels = {
        names.WORKSPACE_LABEL: view.workspace.name,
        names.WORKSPACE_NAMESPACE_LABEL: view.workspace.namespace,
    }
    return NodePatch(node=node, patch={"metadata": {"labels": labels}})


def _replaced(
    workload: Workload | None, job: Manifest, *, enough: bool, is_stale: bool
) -> tuple[tuple[Manifest, ...], tuple[Doomed, ...]]:
    """Return the Job where there is none yet; one that was made for another wish has to go first."""
    if workload is None:
        return ((job,) if enough else ()), ()
    if not is_stale or workload.is_deleting:
        return (), ()
    return (), (_doomed(workload),)


def _doomed(workload: Workload) -> Doomed:
    return Doomed(kind=workload.kind, namespace=workload.namespace, name=workload.name, uid=workload.uid)


def _digest_of(manifest: Manifest) -> str:
    return str(manifest.body["metadata"]["annotations"][ANNOTATION])


def _notices(before: tuple[Condition, ...], after: tuple[Condition, ...]) -> list[Notice]:
    """Return an Event for each change that a person who looks at the Workspace wants to read about."""
    old = {condition.type: condition for condition in before}
    notices = []
    for condition in after:
        was = old.get(condition.type)
        if was is not None and (was.status, was.reason) == (condition.status, condition.reason):
            continue
        if condition.type == SUCCEEDED and condition.status == "True":
            notices.append(Notice(reason=condition.reason, message=condition.message))
        elif condition.type in (RESOURCE_READY, INFERENCE_READY, JOB_STARTED) and _is_failure(condition):
            notices.append(Notice(reason=condition.reason, message=condition.message, is_warning=True))
        elif condition.type == NODE_CLAIM_READY and condition.status == "True":
            notices.append(Notice(reason=condition.reason, message=condition.message))
    return notices


def _is_failure(condition: Condition) -> bool:
    return condition.status != "True" and condition.reason not in PROGRESS
