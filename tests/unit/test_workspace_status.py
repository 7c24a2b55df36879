"""What a Workspace's status says, in KAITO's words: conditions, reasons, states and when they change."""

from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.nodeclaim import NodeClaim, parse_nodeclaim
from provisioner.apis.workspace import Workspace, parse_workspace
from provisioner.workspace.conditions import Conditions
from provisioner.workspace.lifecycle import reconcile
from provisioner.workspace.nodes import claim_name, render_claim
from provisioner.workspace.status import claim_trouble
from provisioner.workspace.view import (
    JOB,
    STATEFUL_SET,
    Inputs,
    PodState,
    Problem,
    Serving,
    Step,
    View,
    Workload,
)
from provisioner.workspace.workload import parse_job, parse_stateful_set
from tests.unit.builders import condition, node
from tests.unit.claim_world import merge
from tests.unit.workspace_builders import (
    A100,
    CREATED,
    IMAGE,
    NOW,
    OTHER_MODEL,
    SELECTOR,
    SIZES,
    inference,
    model_of,
    raw_workspace,
    sizing_of,
    tuning,
    workspace,
)
from tests.unit.workspace_manifests import job, stateful_set

OWN = {"kaito.sh/workspace": "chat", "kaito.sh/workspacenamespace": "ml", "karpenter.sh/nodepool": "kaito"}
WELL = node(name="n1", labels=OWN)
TUNING = tuning(output={"volumeSource": {"emptyDir": {}}})
FINALIZERS = [names.WORKSPACE_FINALIZER]
QUOTA = "NCADSA100v4: 24 vCPUs are needed, 0 of 24 are left. Ask for more in eastus."


def claim(*conditions: dict[str, Any], index: int = 0, **status: Any) -> NodeClaim:
    subject = workspace()
    body = render_claim(subject, sizing_of(subject), claim_name(subject, index))
    body["metadata"]["uid"] = f"uid-{index}"
    return parse_nodeclaim({**body, "status": {"conditions": list(conditions), **status}})


READY_CLAIM = claim(condition("Ready", "True", "Ready"), nodeName="n1")


def running(**changes: Any) -> Workload:
    body = stateful_set()
    status = {"observedGeneration": 1, "readyReplicas": 1, "currentRevision": "a", "updateRevision": "a"}
    metadata = {**body["metadata"], "uid": "u", "generation": 1}
    return replace(parse_stateful_set({**body, "metadata": metadata, "status": status}), **changes)


def tuned(**status: Any) -> Workload:
    body = job(spec=TUNING)
    return parse_job({**body, "metadata": {**body["metadata"], "uid": "u"}, "status": status})


class Look:
    """A Workspace that is looked at again and again, and whose status is written as each look wants it."""

    def __init__(self, **changes: Any) -> None:
        self.raw = raw_workspace(finalizers=FINALIZERS, **changes)
        self.now = NOW
        self.steps: list[Step] = []

    @property
    def subject(self) -> Workspace:
        return parse_workspace(self.raw)

    def look(self, **seen: Any) -> Step:
        """Look until nothing is left to be written into the status; return the last step."""
        for _ in range(4):
            self.now += timedelta(seconds=10)
            subject = self.subject
            step = reconcile(
                View(
                    **{
                        "workspace": subject,
                        "now": self.now,
                        "sizes": SIZES,
                        "settings": Serving(image=IMAGE),
                        "model": model_of(subject),
                        **seen,
                    }
                )
            )
            self.steps.append(step)
            if step.status is None:
                assert not step.notices, "what changes nothing is not told"
                return step
            self.raw = merge(self.raw, {"status": step.status})
        raise AssertionError(f"the status is written again and again: {step.status}")

    def told(self, kind: str) -> tuple[str, str, str]:
        found = self.subject.condition(kind)
        return (found.status, found.reason, found.message) if found else ("", "", "")

    def reason(self, kind: str) -> tuple[str, str]:
        return self.told(kind)[:2]

    @property
    def state(self) -> str:
        return self.subject.state


# What a claim says


@pytest.mark.parametrize(
    ("conditions", "reason", "message"),
    [
        ([], "NodeClaimNotReady", f"NodeClaim {claim().name} waits for its provisioner."),
        (
            [
                condition(kind, "Unknown", "AwaitingReconciliation", "object is awaiting reconciliation")
                for kind in ("Launched", "Registered", "Initialized", "Ready")
            ],
            "AwaitingReconciliation",
            "object is awaiting reconciliation",
        ),
        (
            [
                condition("Initialized", "Unknown", "AwaitingReconciliation", "object is awaiting reconciliation"),
                condition("Launched", "False", "QuotaExceeded", QUOTA),
                condition("Ready", "False", "UnhealthyDependents", "Launched=False"),
            ],
            "QuotaExceeded",
            QUOTA,
        ),
        (
            [condition("Launched", "True", "Launched"), condition("Registered", "Unknown", "NodeNotFound", "No Node.")],
            "NodeNotFound",
            "No Node.",
        ),
        (
            [
                condition("Launched", "True", "Launched"),
                condition("Registered", "True", "Registered"),
                condition("Initialized", "Unknown", "ResourceNotRegistered", "0 of 1 nvidia.com/gpu"),
            ],
            "ResourceNotRegistered",
            "0 of 1 nvidia.com/gpu",
        ),
        # Launched before Registered before Initialized, whatever their order
        (
            [
                condition("Registered", "Unknown", "NodeNotFound", "No Node."),
                condition("Launched", "Unknown", "LaunchFailed", "Azure says no."),
            ],
            "LaunchFailed",
            "Azure says no.",
        ),
        # Provisioners that say less than they should
        (
            [condition("Launched", "False", "Broken")],
            "Broken",
            f"NodeClaim {claim().name} waits for its provisioner: Launched=False.",
        ),
        ([condition("Launched", "False", "", "It broke.")], "NodeClaimNotReady", "It broke."),
        ([condition("Launched", "False", "not a reason", "It broke.")], "NodeClaimNotReady", "It broke."),
        ([condition("Ready", "False", "NoRoom", "There is none.")], "NoRoom", "There is none."),
    ],
)
def test_claims_word_is_handed_on(conditions: list[dict[str, Any]], reason: str, message: str) -> None:
    assert claim_trouble(claim(*conditions)) == (reason, message)

    looked = Look()
    looked.look(claims=(claim(*conditions),))
    for kind in ("NodeClaimReady", "ResourceReady", "WorkspaceSucceeded", "WorkspaceReady"):
        assert looked.told(kind) == ("False", reason, message)
    assert looked.reason("NodesReady") == ("False", "NodeNotReady")
    assert looked.state == "Pending"


def test_claim_that_fails_is_told_of_before_those_that_come_on() -> None:
    subject = workspace(resource={"labelSelector": SELECTOR, "instanceType": A100, "count": 3})
    looked = Look(resource={"labelSelector": SELECTOR, "instanceType": A100, "count": 3})
    assert sizing_of(subject).nodes == 3
    coming = claim(condition("Launched", "Unknown", "CreatingAgentPool", "Azure is creating it."))
    failing = claim(
        condition("Launched", "True", "Launched"),
        condition("Registered", "False", "MultipleNodesFound", "Two."),
        index=1,
    )
    looked.look(claims=(coming, failing, claim(condition("Ready", "True", "Ready"), index=2)))

    assert looked.told("NodeClaimReady") == ("False", "MultipleNodesFound", "Two. (2 of 3 NodeClaims are not ready.)")


def test_long_message_is_cut() -> None:
    looked = Look()
    looked.look(claims=(claim(condition("Launched", "False", "QuotaExceeded", "x" * 30_000)),))

    assert len(looked.told("ResourceReady")[2]) == 2048


# Stage by stage


@pytest.mark.parametrize(
    ("one", "seen", "claims", "nodes", "resource"),
    [
        (
            claim(condition("Ready", "Unknown", "A", "b"), nodeName="n1"),
            WELL,
            "A",
            "NodesReady",
            "workspaceResourceStatusSuccess",
        ),
        (claim(condition("Ready", "True", "Ready")), None, "NodeClaimsReady", "NodeNotReady", "NodeNotReady"),
        (claim(nodeName="n1"), WELL, "NodeClaimsReady", "NodesReady", "workspaceResourceStatusSuccess"),
        (READY_CLAIM, node(name="n1", labels=OWN, ready="False"), "NodeClaimsReady", "NodeNotReady", "NodeNotReady"),
        (READY_CLAIM, node(name="n1", labels=OWN, deleting=True), "NodeClaimsReady", "NodeNotReady", "NodeNotReady"),
        (READY_CLAIM, node(name="n1", labels={}), "NodeClaimsReady", "NodeNotReady", "NodeNotReady"),
        (
            READY_CLAIM,
            node(name="n1", labels=OWN, gpus=None),
            "NodeClaimsReady",
            "NodePluginsNotReady",
            "NodePluginsNotReady",
        ),
        (
            READY_CLAIM,
            node(name="n1", labels=OWN, gpus=0),
            "NodeClaimsReady",
            "NodePluginsNotReady",
            "NodePluginsNotReady",
        ),
        (
            READY_CLAIM,
            node(name="n1", labels=OWN, allocatable={names.NVIDIA_GPU: "0"}),
            "NodeClaimsReady",
            "NodePluginsNotReady",
            "NodePluginsNotReady",
        ),
        (
            READY_CLAIM,
            node(name="n1", labels=OWN, size=A100.lower()),
            "NodeClaimsReady",
            "NodesReady",
            "workspaceResourceStatusSuccess",
        ),
        (READY_CLAIM, WELL, "NodeClaimsReady", "NodesReady", "workspaceResourceStatusSuccess"),
    ],
)
def test_nodes_and_claims(one: NodeClaim, seen: Any, claims: str, nodes: str, resource: str) -> None:
    looked = Look()
    step = looked.look(claims=(one,), nodes=(seen,) if seen else ())

    assert looked.told("NodeClaimReady")[1] == claims
    assert looked.told("NodesReady")[1] == nodes
    assert looked.told("ResourceReady")[1] == resource
    is_enough = resource == "workspaceResourceStatusSuccess"
    assert looked.told("ResourceReady")[0] == ("True" if is_enough else "False")
    assert ("StatefulSet" in {manifest.kind.kind for manifest in step.manifests}) is is_enough


@pytest.mark.parametrize(
    ("changes", "seen", "reason"),
    [
        ({"spec": inference(preset={"name": "phi-99"})}, {}, "UnknownPreset"),
        ({"spec": inference(preset={"name": "acme/tiny"})}, {"model": None}, "ModelPending"),
        ({"spec": inference(preset={"name": "acme/tiny"})}, {"model": Problem(reason="No", message="no.")}, "No"),
        ({"resource": {"labelSelector": SELECTOR, "instanceType": "Standard_NC999"}}, {}, "UnknownInstanceType"),
        ({"spec": inference(config="conf")}, {}, "ConfigMapNotFound"),
    ],
)
def test_nothing_is_ready_while_nothing_is_decided(changes: dict[str, Any], seen: dict[str, Any], reason: str) -> None:
    looked = Look(**changes)
    step = looked.look(**seen)

    assert looked.reason("ResourceReady") == ("False", reason)
    assert looked.told("WorkspaceSucceeded")[0] == "False"
    assert looked.told("NodeClaimReady") == looked.told("NodesReady") == ("", "", "")
    assert looked.state == "Pending"
    assert looked.subject.target_node_count == 0
    assert (step.claims, step.manifests, step.node_patches) == ((), (), ())
    assert step.again_after is not None


def test_what_was_decided_is_written_before_anything_is_made() -> None:
    looked = Look()
    looked.look()
    first, *later = looked.steps

    assert (first.claims, first.manifests, first.node_patches, first.deletions) == ((), (), (), ())
    assert first.status is not None
    assert (first.status["targetNodeCount"], first.status["instanceTypes"]) == (1, [A100])
    assert later[-1].claims


def test_model_that_was_looked_up_is_recorded() -> None:
    looked = Look(spec=inference(preset={"name": "acme/tiny"}))
    looked.look()

    assert looked.subject.model["name"] == OTHER_MODEL.name
    assert looked.subject.model["revision"] == OTHER_MODEL.revision


# Inference


def test_inference_gets_ready_goes_down_and_comes_back() -> None:
    looked = Look()
    looked.look()
    assert looked.state == "Pending"
    up = {"claims": (READY_CLAIM,), "nodes": (WELL,)}
    looked.look(**up)
    assert looked.reason("InferenceReady") == ("False", "WorkspaceInferenceStatusPending")
    assert looked.reason("WorkspaceSucceeded") == ("False", "workspacePending")
    assert looked.state == "Pending"
    looked.look(**up, workload=running())
    assert looked.reason("InferenceReady") == ("True", "WorkspaceInferenceStatusSuccess")
    assert looked.reason("WorkspaceSucceeded") == ("True", "workspaceSucceeded")
    assert (looked.state, looked.subject.endpoint) == ("Ready", "http://chat.ml.svc")
    assert looked.subject.worker_nodes == ("n1",)
    since = looked.now
    looked.look(claims=(READY_CLAIM,), nodes=(), workload=running(ready=0))
    assert looked.state == "NotReady"
    assert looked.reason("WorkspaceSucceeded") == ("False", "NodeNotReady")
    found = looked.subject.condition("WorkspaceSucceeded")
    assert found is not None
    assert found.last_transition > since
    # Back to nothing at all, and still it has served before.
    looked.look()
    assert looked.state == "NotReady"
    looked.look(**up, workload=running())
    assert looked.state == "Ready"


@pytest.mark.parametrize(
    "changes",
    [{"ready": 0}, {"is_rolled_out": False}, {"wanted": 0, "ready": 0}],
)
def test_set_that_is_not_well_is_not_ready(changes: dict[str, Any]) -> None:
    looked = Look()
    looked.look(claims=(READY_CLAIM,), nodes=(WELL,), workload=running(**changes))

    assert looked.reason("InferenceReady") == ("False", "WorkspaceInferenceStatusPending")


def test_pods_word_is_handed_on_and_unschedulable_ones_say_least() -> None:
    looked = Look()
    waits = PodState(name="a", node_name="", phase="Pending", is_ready=False, reason="Unschedulable", message="0/3")
    died = replace(waits, name="chat-0", reason="ContainerOOMKilled", message="Container chat was killed.")
    looked.look(claims=(READY_CLAIM,), nodes=(WELL,), workload=running(ready=0), pods=(waits, died))

    for kind in ("InferenceReady", "WorkspaceSucceeded"):
        assert looked.told(kind) == ("False", "ContainerOOMKilled", "Pod chat-0: Container chat was killed.")
    assert [n.reason for step in looked.steps for n in step.notices if n.is_warning] == ["ContainerOOMKilled"]


def test_secret_that_vanishes_is_told_and_what_runs_goes_on() -> None:
    spec = inference(preset={"name": "llama-3.1-8b-instruct", "presetOptions": {"modelAccessSecret": "hf"}})
    looked = Look(spec=spec, status={"state": "Ready", "targetNodeCount": 1, "instanceTypes": [A100]})
    step = looked.look(claims=(READY_CLAIM,), nodes=(WELL,), workload=running())

    assert looked.reason("ResourceReady") == ("False", "SecretNotFound")
    assert looked.reason("InferenceReady") == ("True", "WorkspaceInferenceStatusSuccess")
    assert looked.reason("WorkspaceSucceeded") == ("False", "SecretNotFound")
    assert looked.state == "NotReady"
    assert (step.deletions, step.manifests) == ((), ())


# Tuning


def test_tuning_starts_runs_and_ends() -> None:
    looked = Look(spec=TUNING)
    up = {"claims": (READY_CLAIM,), "nodes": (WELL,)}
    looked.look(**up)
    assert (looked.reason("JobStarted"), looked.state) == (("False", "WorkspaceTuningJobStatusPending"), "Pending")
    looked.look(**up, workload=tuned(active=1, ready=0))
    assert looked.state == "Pending"
    looked.look(**up, workload=tuned(active=1, ready=1))
    assert (looked.reason("JobStarted"), looked.state) == (("True", "WorkspaceTuningJobStatusStarted"), "Running")
    assert looked.reason("WorkspaceSucceeded") == ("False", "workspacePending")
    # Its container is started again.
    looked.look(**up, workload=tuned(active=1, ready=0))
    assert looked.state == "Running"
    looked.look(**up, workload=tuned(succeeded=1))
    assert (looked.reason("WorkspaceSucceeded"), looked.state) == (("True", "workspaceSucceeded"), "Succeeded")
    # Its Node may go, and what it referred to.
    step = looked.look(workload=tuned(succeeded=1))
    assert (step.claims, looked.state) == ((), "Succeeded")


def test_failed_tuning_says_why_when_its_pod_is_gone() -> None:
    looked = Look(spec=TUNING)
    up = {"claims": (READY_CLAIM,), "nodes": (WELL,)}
    died = PodState(
        name="p",
        node_name="n1",
        phase="Running",
        is_ready=False,
        reason="ContainerCrashLoopBackOff",
        message="No data.",
    )
    looked.look(**up, workload=tuned(active=1, ready=1), pods=(died,))
    assert (looked.state, looked.told("JobStarted")[2]) == ("Running", "Pod p: No data.")
    over = tuned(failed=7, conditions=[{"type": "Failed", "status": "True"}])
    looked.look(**up, workload=over)
    looked.look(**up, workload=over)

    assert looked.told("JobStarted") == ("False", "WorkspaceTuningJobStatusFailed", "Pod p: No data.")
    assert looked.told("WorkspaceSucceeded") == ("False", "workspaceFailed", "Pod p: No data.")
    assert looked.state == "Failed"


@pytest.mark.parametrize("state", ["Succeeded", "Failed"])
def test_ended_tuning_stays_what_it_is_when_its_secret_vanishes(state: str) -> None:
    ended = {"succeeded": 1} if state == "Succeeded" else {"conditions": [{"type": "Failed", "status": "True"}]}
    looked = Look(spec=tuning(), status={"state": state, "targetNodeCount": 1})
    step = looked.look(workload=tuned(**ended))

    assert (looked.state, step.deletions, step.claims, step.manifests) == (state, (), (), ())


def test_running_tuning_whose_secret_vanishes_runs_on_to_its_end() -> None:
    looked = Look(spec=tuning(), status={"state": "Running", "targetNodeCount": 1})
    looked.look(workload=tuned(active=1, ready=1))
    assert (looked.state, looked.reason("ResourceReady")) == ("Running", ("False", "SecretNotFound"))
    looked.look(workload=tuned(succeeded=1))
    assert looked.state == "Succeeded"


def test_job_of_another_controller_is_left_alone() -> None:
    looked = Look(spec=TUNING)
    foreign = replace(tuned(active=1, ready=1), digest="")
    step = looked.look(claims=(READY_CLAIM,), nodes=(WELL,), workload=foreign)

    assert (looked.state, step.deletions, step.manifests) == ("Running", (), ())


def test_job_of_another_wish_is_told_of_before_it_goes() -> None:
    looked = Look(spec=TUNING, status={"state": "Succeeded", "targetNodeCount": 1, "instanceTypes": [A100]})
    old = replace(tuned(succeeded=1), digest="old")
    up = {"claims": (READY_CLAIM,), "nodes": (WELL,)}
    step = looked.look(**up, workload=old)

    # A finished tuning that lacks its Job would not be tuned once more.
    assert tuple(field.name for field in fields(Step))[:2] == ("metadata", "status")
    assert looked.state == "Pending"
    assert [(doomed.kind, doomed.name, doomed.uid) for doomed in step.deletions] == [(JOB, "chat", "u")]
    going = looked.look(**up, workload=replace(old, is_deleting=True))
    assert (going.deletions, going.manifests, looked.state) == ((), (), "Pending")


@pytest.mark.parametrize(("pods", "digest", "made_anew"), [(1, "old", False), (2, "old", True), (2, "", False)])
def test_group_of_another_wish_goes_as_a_whole(pods: int, digest: str, made_anew: bool) -> None:
    """One after the other a worker of the new template would wait for a leader of the old one, and that for it."""
    looked = Look()
    step = looked.look(
        claims=(READY_CLAIM,), nodes=(WELL,), workload=replace(running(wanted=pods, ready=pods), digest=digest)
    )
    applied = [manifest.kind for manifest in step.manifests if manifest.kind is STATEFUL_SET]

    assert [doomed.kind for doomed in step.deletions] == ([STATEFUL_SET] if made_anew else [])
    assert applied == ([] if made_anew else [STATEFUL_SET])


# Bookkeeping


def test_conditions_are_of_the_generation_that_was_looked_at() -> None:
    looked = Look(generation=7)
    looked.look()

    assert {one.observed_generation for one in looked.subject.conditions} == {7}


def test_transition_time_moves_with_the_status_alone() -> None:
    conditions = Conditions((), generation=1, now=CREATED)
    conditions.set("A", False, reason="One")
    later = Conditions(conditions.result(), generation=2, now=NOW)
    later.set("A", True, reason="Between")
    later.set("A", False, reason="Two")
    (found,) = later.result()

    assert (found.reason, found.last_transition, found.observed_generation) == ("Two", CREATED, 2)
    later.set("A", True, reason="Three")
    assert later.result()[0].last_transition == NOW


def test_first_thing_is_our_finalizer() -> None:
    subject = workspace(finalizers=["other"])
    step = reconcile(View(workspace=subject, now=NOW, sizes=SIZES, settings=Serving(image=IMAGE)))

    assert step == Step(metadata={"finalizers": ["other", names.WORKSPACE_FINALIZER]})


def test_workspace_without_claims_where_none_are_written() -> None:
    looked = Look()
    step = looked.look(settings=Serving(image=IMAGE, writes_claims=False))

    assert step.claims == ()
    assert looked.told("NodeClaimReady") == ("", "", "")
    assert looked.reason("ResourceReady") == ("False", "NodeNotReady")


# Deletion


def going(**seen: Any) -> Step:
    subject = workspace(finalizers=FINALIZERS, deletionTimestamp="2026-11-21T05:00:00Z")
    return reconcile(View(workspace=subject, now=NOW, sizes=SIZES, settings=Serving(image=IMAGE), **seen))


def test_deleted_workspace_takes_its_workload_and_claims_with_it_and_goes_last() -> None:
    step = going(claims=(READY_CLAIM,), workload=running(), nodes=(WELL,))

    assert [doomed.kind.kind for doomed in step.deletions] == ["StatefulSet", "NodeClaim"]
    assert step.status is not None
    assert not step.release
    assert step.again_after is not None
    assert (step.claims, step.manifests, step.node_patches) == ((), (), ())
    deleting = replace(READY_CLAIM, deleted=NOW)
    waiting = going(claims=(deleting,), workload=running(is_deleting=True))
    assert (waiting.deletions, waiting.release) == ((), False)
    assert going().release


def test_brought_nodes_of_a_deleted_workspace_are_given_back() -> None:
    labels = {key: value for key, value in OWN.items() if key != "karpenter.sh/nodepool"}
    mine, of_claim = node(name="mine", labels=labels), node(name="n1", labels=labels)
    step = going(claims=(READY_CLAIM,), nodes=(mine, of_claim, node(name="free"), WELL))
    (patch,) = step.node_patches

    assert patch.node == mine
    assert set(patch.patch["metadata"]["labels"]) == {"kaito.sh/workspace", "kaito.sh/workspacenamespace"}


def test_why_a_claim_does_not_go_is_told() -> None:
    stuck = replace(
        claim(condition("Drained", "Unknown", "Draining", "Pod ml/chat-0 is not evicted: its budget forbids it.")),
        deleted=NOW,
    )
    step = going(claims=(stuck,))

    assert step.status is not None
    (told,) = [each for each in step.status["conditions"] if each["type"] == "WorkspaceDeleting"]
    assert (told["type"], told["status"], told["reason"]) == ("WorkspaceDeleting", "True", "workspaceDeleted")
    assert "its budget forbids it" in told["message"]


def test_workspace_that_is_held_by_others_alone_is_left_alone() -> None:
    subject = workspace(finalizers=["other"], deletionTimestamp="2026-11-21T05:00:00Z")

    assert reconcile(View(workspace=subject, now=NOW, sizes=SIZES, settings=Serving(image=IMAGE))) == Step()


def test_config_that_cannot_be_read_is_told() -> None:
    looked = Look(spec=inference(config="conf"))
    looked.look(inputs=Inputs(configs={"conf": {"inference_config.yaml": "vllm: ["}}))

    assert looked.reason("ResourceReady") == ("False", "InvalidConfig")


def test_kinds_of_workloads() -> None:
    assert running().kind is STATEFUL_SET
    assert tuned().kind is JOB
    assert running(namespace="ml", name="chat").key == "ml/chat"
