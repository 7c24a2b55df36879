"""Carries a Step out: the only part of the controller that writes to Kubernetes, and has Azure asked.

Steps are safe to repeat and to lose: whatever fails here ends the step, and the next look at the claim finds the
state as it then is.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from provisioner.apis import names
from provisioner.apis.conditions import DRAINED, REGISTERED
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim, parse_nodeclaim
from provisioner.apis.quota import Shortage
from provisioner.kube.events import EventRecorder, ObjectRef
from provisioner.kube.gateway import KubeGateway, Rejected
from provisioner.kube.store import Store
from provisioner.nodeclaim.azure_requests import Answer, AzureRequests
from provisioner.nodeclaim.delays import SizeDelays
from provisioner.nodeclaim.evictions import Evictions
from provisioner.nodeclaim.liveness import REGISTRATION_TIMEOUT
from provisioner.nodeclaim.metrics import ClaimMetrics
from provisioner.nodeclaim.node_metrics import NodeMetrics
from provisioner.nodeclaim.view import (
    Ailment,
    NodePatch,
    Step,
    View,
    Waiting,
)

_log: Final = logging.getLogger(__name__)


class Wishes(Protocol):
    """Who reads the quota when it is wanted; `Quotas` is one."""

    def want(self) -> None:
        """Ask for usages that are fresh enough."""
        ...

    def distrust(self, shortage: Shortage) -> None:
        """Ask for new usages: those that are known have hidden a shortage."""
        ...


def reference(claim: NodeClaim) -> ObjectRef:
    """Return what an Event about the claim refers to."""
    return ObjectRef(kind=names.NODECLAIM_KIND, name=claim.name, uid=claim.uid, api_version=names.NODECLAIM_API_VERSION)


def node_reference(node: Node) -> ObjectRef:
    """Return what an Event about the Node refers to."""
    return ObjectRef(kind="Node", name=node.name, uid=node.uid, api_version="v1")


class Actuator:
    """Carries out Steps and keeps what was learned by it, by the claim's UID; what Azure said is kept by `azure`."""

    def __init__(
        self,
        *,
        kube: KubeGateway,
        store: Store,
        azure: AzureRequests,
        recorder: EventRecorder,
        delays: SizeDelays,
        quotas: Wishes,
        evictions: Evictions,
        now: Callable[[], datetime],
        claim_metrics: ClaimMetrics,
        node_metrics: NodeMetrics,
    ) -> None:
        self._kube = kube
        self._store = store
        self._azure = azure
        self._recorder = recorder
        self._delays = delays
        self._quotas = quotas
        self._evictions = evictions
        self._now = now
        self._claim_metrics = claim_metrics
        self._node_metrics = node_metrics
        self._waiting: dict[str, Waiting] = {}
        # Why we have deleted claims ourselves, until their pods were counted by it.
        self._disrupted: dict[str, str] = {}

    def waiting(self, uid: str) -> Waiting | None:
        """Return what the claim was last seen to wait for."""
        return self._waiting.get(uid)

    def blocked(self, node_name: str) -> Mapping[str, str]:
        """Return by the pod's UID why pods of the Node could not be made to leave when that was last tried."""
        return self._evictions.blocked(node_name)

    def forget_node(self, name: str) -> None:
        """Want nothing more of the pods of a Node that is gone."""
        self._evictions.forget(name)

    def forget(self, uid: str) -> None:
        """Drop what was learned about a claim that is gone."""
        self._waiting.pop(uid, None)
        self._disrupted.pop(uid, None)
        self._azure.forget(uid)

    def retain(self, uids: Collection[str]) -> None:
        """Drop what was learned about all claims but these."""
        for known in (self._waiting, self._disrupted):
            for uid in known.keys() - uids:
                del known[uid]
        self._azure.retain(uids)

    async def carry_out(self, view: View, step: Step) -> bool:
        """Do what the step says. Returns whether the claim is worth another look at once.

        Raises KubeError; what was done before stands, and what was not done is found missing at the next look.
        """
        claim, learned = view.claim, False
        self._keep(claim, step)
        self._count_pods(view)
        if step.metadata is not None:
            before, claim = claim, await self._write_metadata(claim, step.metadata)
            if claim.is_deleting and not view.claim.is_deleting:
                # Deleted while we decided: nothing is asked of Azure for it any more.
                return True
            learned = claim is not before
        if step.node_patch is not None:
            # A patch that a webhook undoes changes nothing, and would be sent again at once for ever.
            learned |= await self._patch_node(step.node_patch)
        for node in step.going_nodes:
            await self._delete_node(node)
            _log.info("deleting Node of a claim that is being deleted", extra={"claim": claim.name, "node": node.name})
        if step.status_follows:
            if await self._azure.ask(view, step) is Answer.ACCEPTED:
                self._tell(view, step)
                if step.status is not None:
                    self._count_drained(step, before=claim, after=await self._write_status(claim, step.status))
            return True
        if step.status is not None:
            before, claim = claim, await self._write_status(claim, step.status)
            self._count_drained(step, before=before, after=claim)
        self._tell(view, step)
        learned |= step.azure is not None and await self._azure.ask(view, step) is not Answer.NOTHING
        for node in step.deleted_nodes:
            await self._release_node(node)
            self._node_metrics.terminated(node, since=claim.deleted or self._now())
            _log.info("deleted Node of a claim that is gone", extra={"claim": claim.name, "node": node.name})
        if step.release:
            await self._release(claim)
            return False
        if step.delete_claim:
            await self._delete_claim(claim, reason=step.delete_claim, ailment=step.ailment)
            return True
        return learned

    def _count_pods(self, view: View) -> None:
        """Count the pods of a claim that we have deleted, once what is on its Nodes was read."""
        if view.loads and (reason := self._disrupted.pop(view.claim.uid, "")):
            pods = [pod for load in view.loads.values() for pod in load.pods]
            self._node_metrics.pods_disrupted(view.claim, pods, reason=reason)

    def _keep(self, claim: NodeClaim, step: Step) -> None:
        """Do what is for the controller's memory alone."""
        if step.settled:
            self.forget(claim.uid)
        if step.waiting is not None:
            self._waiting[claim.uid] = step.waiting
        else:
            self._waiting.pop(claim.uid, None)
        for wanted in step.evictions:
            self._evictions.want(wanted.node, wanted.evictions, reason=wanted.reason)
        if step.refresh:
            self._azure.wake()
        if step.wants_quota:
            self._quotas.want()
        if step.unavailable is not None:
            self._azure.remember(claim.name, step.unavailable)

    def _take(self, raw: dict[str, Any]) -> NodeClaim:
        # Into the store before the watch tells of it, so that the next look is not one at the past.
        self._store.put_claim(raw)
        return parse_nodeclaim(raw)

    async def _write_metadata(self, claim: NodeClaim, metadata: Mapping[str, Any]) -> NodeClaim:
        try:
            raw = await self._kube.patch_claim(
                claim.name, {"metadata": metadata}, resource_version=claim.resource_version
            )
        except Rejected as error:
            if not claim.is_deleting:
                raise
            # As in _write_status; what would have been written down follows from what is there.
            _log.warning("metadata refused by the API server", extra={"claim": claim.name, "error": str(error)})
            return claim
        return self._take(raw)

    async def _write_status(self, claim: NodeClaim, status: Mapping[str, Any]) -> NodeClaim:
        try:
            written = self._take(
                await self._kube.patch_claim_status(
                    claim.name, {"status": status}, resource_version=claim.resource_version
                )
            )
        except Rejected as error:
            if not claim.is_deleting:
                raise
            # A claim stored under an older CRD may fail validation on every write; it must go all the same.
            _log.warning("status refused by the API server", extra={"claim": claim.name, "error": str(error)})
            return claim
        self._claim_metrics.written(claim, written)
        if written.is_true(REGISTERED) and not claim.is_true(REGISTERED):
            self._delays.succeeded(_size(written))
            self._node_metrics.created(written)
        return written

    async def _patch_node(self, patch: NodePatch) -> bool:
        node = patch.node
        return self._store.put_node(
            await self._kube.patch_node(node.name, patch.patch, resource_version=node.resource_version)
            if patch.is_of_version
            else await self._kube.patch_node_metadata(node.name, patch.patch, uid=node.uid)
        )

    def _count_drained(self, step: Step, *, before: NodeClaim, after: NodeClaim) -> None:
        if after.is_true(DRAINED) and not before.is_true(DRAINED):
            for entry in step.evictions:
                self._node_metrics.drained(entry.node)

    async def _delete_node(self, node: Node) -> None:
        # The answer into the store, or the next look would delete the Node once more.
        raw = await self._kube.delete_node(node.name, uid=node.uid)
        if raw is not None:
            self._store.put_node(raw)

    async def _release_node(self, node: Node) -> None:
        others = [name for name in node.finalizers if name != names.TERMINATION_FINALIZER]
        if len(others) < len(node.finalizers):
            await self._kube.patch_node(
                node.name, {"metadata": {"finalizers": others}}, resource_version=node.resource_version
            )
        if not node.is_deleting:
            await self._kube.delete_node(node.name, uid=node.uid)
        self.forget_node(node.name)

    async def let_go(self, node: Node) -> None:
        """Take our finalizer off a deleted Node that is no claim's. Raises KubeError."""
        await self._release_node(node)
        _log.info("released Node that is no claim's", extra={"node": node.name})

    async def delete_claim_of(self, node: Node, claim: NodeClaim) -> None:
        """Delete the claim whose Node somebody has deleted. Raises KubeError."""
        message = f"Node {node.name} was deleted; deleting the claim and its agent pool."
        self._recorder.record(reference(claim), type="Normal", reason="NodeDeleted", message=message)
        await self._kube.delete_claim(claim.name, uid=claim.uid)
        _log.info("deleting a claim whose Node was deleted", extra={"claim": claim.name, "node": node.name})

    async def _delete_claim(self, claim: NodeClaim, *, reason: str, ailment: Ailment | None) -> None:
        await self._kube.delete_claim(claim.name, uid=claim.uid)
        self._claim_metrics.disrupted(claim, reason=reason)
        self._disrupted[claim.uid] = reason
        if ailment is not None:
            self._claim_metrics.unhealthy(claim, condition=ailment.condition, image_id=ailment.image_id)
        if reason == REGISTRATION_TIMEOUT:
            self._delays.failed(_size(claim), now=self._now())
        _log.warning("deleting a claim", extra={"claim": claim.name, "reason": reason})
        # The watch may tell of it later than the next look would come, which would then delete and count it again.
        raw = await self._kube.get_claim(claim.name)
        if raw is not None:
            self._store.put_claim(raw)
        else:
            self._store.remove_claim(claim.name, uid=claim.uid)
            self.forget(claim.uid)

    async def _release(self, claim: NodeClaim) -> None:
        others = [name for name in claim.finalizers if name != names.TERMINATION_FINALIZER]
        raw = await self._kube.patch_claim(
            claim.name, {"metadata": {"finalizers": others}}, resource_version=claim.resource_version
        )
        if raw["metadata"].get("finalizers"):
            self._store.put_claim(raw)
        else:
            # Gone with its last finalizer. The answer has the version of our write before it, so that a late event of
            # that write would put the claim back where it was.
            self._store.remove_claim(claim.name, uid=claim.uid)
        self.forget(claim.uid)
        self._claim_metrics.released(claim)
        _log.info("claim released: nothing is left of it in Azure", extra={"claim": claim.name})

    def _tell(self, view: View, step: Step) -> None:
        for notice in step.notices:
            self._recorder.record(
                node_reference(notice.node) if notice.node is not None else reference(view.claim),
                type="Warning" if notice.is_warning else "Normal",
                reason=notice.reason,
                message=notice.message,
            )
            if notice.node is not None and view.claim.is_deleting:
                # Repeated at every look of a drain; the recorder tells it once.
                continue
            _log.log(
                logging.WARNING if notice.is_warning else logging.INFO,
                notice.message,
                extra={"claim": view.claim.name, "reason": notice.reason},
            )


def _size(claim: NodeClaim) -> str:
    return claim.annotations.get(names.INSTANCE_TYPE_ANNOTATION, "")
