"""Nodes and claims of a Workspace: what a claim says, how many there are to be, which brought Nodes are taken."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim, parse_nodeclaim
from provisioner.apis.workspace import Workspace
from provisioner.workspace.nodes import Holdings, brought_type, claim_name, hold, render_claim
from tests.unit.builders import condition, node
from tests.unit.workspace_builders import A100, NOW, SELECTOR, SIZES, UID, inference, sizing_of, tuning, workspace

KAITO_LABELS = {"kaito.sh/workspace": "chat", "kaito.sh/workspacenamespace": "ml"}
TEMPLATE: dict[str, Any] = {"spec": {"containers": [{"name": "c", "image": "i"}]}}


def three(**resource: Any) -> Workspace:
    return workspace(resource={"labelSelector": SELECTOR, "instanceType": A100, "count": 3, **resource})


def claim(
    subject: Workspace, index: int, *, ready: bool | None = None, deleted: bool = False, age: int = 0, **status: Any
) -> NodeClaim:
    """Return one of the Workspace's claims; `ready` is None for one that nobody has looked at."""
    body = render_claim(subject, sizing_of(subject), claim_name(subject, index))
    made = (NOW - timedelta(minutes=age)).isoformat()
    body["metadata"] |= {"uid": f"uid-{index}", "creationTimestamp": made}
    if deleted:
        body["metadata"] |= {"deletionTimestamp": NOW.isoformat(), "finalizers": [names.TERMINATION_FINALIZER]}
    conditions = [] if ready is None else [condition("Ready", "True" if ready else "False", "Because")]
    return parse_nodeclaim({**body, "status": {"conditions": conditions, **status}})


def brought(name: str = "brought", *, taken: bool = False, **changes: Any) -> Node:
    labels = {"apps": "chat", **(KAITO_LABELS if taken else {}), **changes.pop("labels", {})}
    return node(name=name, labels=labels, **changes)


def held(subject: Workspace, *seen: NodeClaim | Node, writes_claims: bool = True) -> Holdings:
    return hold(
        subject,
        sizing=sizing_of(subject),
        claims=[one for one in seen if isinstance(one, NodeClaim)],
        nodes=[one for one in seen if isinstance(one, Node)],
        writes_claims=writes_claims,
    )


def names_of(bodies: tuple[Mapping[str, Any], ...]) -> list[str]:
    return [body["metadata"]["name"] for body in bodies]


# What a claim says


def test_claim_is_the_one_that_kaito_writes() -> None:
    subject = workspace(resource={"labelSelector": {"matchLabels": {"apps": "phi-4"}}, "instanceType": A100})
    (body,) = held(subject).missing
    requirement = [("karpenter.sh/nodepool", "kaito"), (names.INSTANCE_TYPE_LABEL, A100)]
    requirement += [("kubernetes.io/os", "linux"), ("karpenter.azure.com/sku-name", A100)]

    assert body == {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodeClaim",
        "metadata": {
            "name": claim_name(subject, 0),
            "labels": {"apps": "phi-4", **KAITO_LABELS, "karpenter.sh/nodepool": "kaito"},
            "annotations": {
                "kaito.sh/node-image-family": "ubuntu",
                "karpenter.sh/do-not-disrupt": "true",
                # Not KAITO's: which Workspace of that name.
                "gpu-provisioner.kaito.sh/workspace-uid": UID,
            },
        },
        "spec": {
            "expireAfter": "Never",
            "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
            "requirements": [{"key": key, "operator": "In", "values": [value]} for key, value in requirement],
            "resources": {"requests": {"storage": "107Gi"}},
            "taints": [{"effect": "NoSchedule", "key": "sku", "value": "gpu"}],
        },
    }


@pytest.mark.parametrize(
    ("selector", "labels"),
    [
        ({"matchLabels": {"a": "b", "c": "d"}}, {"a": "b", "c": "d"}),
        ({}, {}),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, {"a": "b"}),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}]}, {"a": "b"}),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, {}),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {}),
        # Pods are pinned by the selector too, so that its word holds on the Node.
        ({"matchLabels": {"karpenter.sh/nodepool": "other"}}, {"karpenter.sh/nodepool": "other"}),
        *(
            ({"matchLabels": {"a": "b", reserved: "x"}}, {"a": "b"})
            for reserved in (
                "kaito.sh/workspace",
                "kaito.sh/workspacenamespace",
                "kaito.sh/ragengine",
                "kaito.sh/ragenginenamespace",
                "karpenter.kaito.sh/workspace-name",
                "karpenter.kaito.sh/workspace-namespace",
                "karpenter.kaito.sh/inferenceset",
                "karpenter.kaito.sh/inferenceset-namespace",
            )
        ),
    ],
)
def test_labels_of_the_selector_are_on_the_claim_but_for_reserved_ones(
    selector: dict[str, Any], labels: dict[str, str]
) -> None:
    subject = workspace(resource={"labelSelector": selector, "instanceType": A100})
    (body,) = held(subject).missing

    assert body["metadata"]["labels"] == {"karpenter.sh/nodepool": "kaito", **labels, **KAITO_LABELS}


@pytest.mark.parametrize(
    ("annotations", "family"),
    [
        ({}, "ubuntu"),
        ({"kaito.sh/node-image-family": "AzureLinux"}, "azurelinux"),
        ({"kaito.sh/node-image-family": "ubuntu"}, "ubuntu"),
        ({"kaito.sh/node-image-family": "windows"}, "ubuntu"),
    ],
)
def test_image_family(annotations: dict[str, str], family: str) -> None:
    (body,) = held(workspace(annotations=annotations)).missing

    assert body["metadata"]["annotations"]["kaito.sh/node-image-family"] == family


def test_node_class_may_be_named() -> None:
    (body,) = held(workspace(annotations={"kaito.sh/node-class-name": "gold"})).missing

    assert body["spec"]["nodeClassRef"]["name"] == "gold"


@pytest.mark.parametrize(
    ("spec", "storage"),
    [
        (inference(), "107Gi"),
        (inference(preset={"name": "phi-4-mini-instruct"}), "87Gi"),
        (inference(template=TEMPLATE), "1024Gi"),
        (tuning(), "207Gi"),
    ],
)
def test_disk(spec: dict[str, Any], storage: str) -> None:
    (body,) = held(workspace(spec=spec)).missing

    assert body["spec"]["resources"]["requests"] == {"storage": storage}


def test_claim_names_several_sizes_only_where_the_workspace_names_none() -> None:
    (open_,) = held(workspace(resource={"labelSelector": SELECTOR})).missing
    (named,) = held(workspace()).missing
    sizes = [
        {r["key"]: r["values"] for r in body["spec"]["requirements"]}[names.INSTANCE_TYPE_LABEL]
        for body in (open_, named)
    ]

    assert len(sizes[0]) > 1
    assert sizes[1] == [A100]
    assert open_["spec"]["requirements"][3]["values"] == sizes[0]


def test_names_are_the_same_each_time_and_fit_an_agent_pool() -> None:
    subject, other = three(), workspace(uid="another")
    made = names_of(held(subject).missing)

    assert made == names_of(held(three()).missing)
    assert len(set(made)) == 3
    assert all(re.fullmatch("[a-z][a-z0-9]{0,11}", name) for name in made)
    assert claim_name(subject, 0) != claim_name(other, 0)


# How many


@pytest.mark.parametrize(
    ("alive", "deleting", "own", "free", "created", "taken"),
    [
        (0, 0, 0, 0, 3, 0),
        (1, 0, 0, 0, 2, 0),
        (3, 0, 0, 0, 0, 0),
        # One that goes is replaced at once, under another name.
        (2, 1, 0, 0, 1, 0),
        (0, 3, 0, 0, 3, 0),
        (0, 0, 1, 0, 2, 0),
        (0, 0, 0, 1, 2, 1),
        (0, 0, 0, 5, 0, 3),
        (2, 0, 0, 2, 0, 1),
        (1, 1, 1, 1, 0, 1),
        (2, 0, 1, 2, 0, 0),
    ],
)
def test_claims_make_up_for_what_is_lacking(
    alive: int, deleting: int, own: int, free: int, created: int, taken: int
) -> None:
    subject = three()
    claims = [claim(subject, index) for index in range(alive)]
    claims += [claim(subject, index, deleted=True) for index in range(alive, alive + deleting)]
    nodes = [brought(f"own-{n}", taken=True) for n in range(own)] + [brought(f"free-{n}") for n in range(free)]
    found = held(subject, *claims, *nodes)

    assert (len(found.missing), len(found.taken), len(found.surplus)) == (created, taken, 0)
    assert not set(names_of(found.missing)) & {one.name for one in claims}
    assert len(set(names_of(found.missing))) == created


def test_surplus_is_what_has_no_node_yet_and_the_newest_of_it() -> None:
    subject = workspace()
    ready, old, new = (
        claim(subject, 0, ready=True, age=1),
        claim(subject, 1, age=60),
        claim(subject, 2, ready=False, age=5),
    )

    assert held(subject, ready, old, new).surplus == (new, old)
    assert held(subject, ready, old).surplus == (old,)
    assert held(subject, ready, claim(subject, 3, ready=True)).surplus == ()
    assert held(subject, old, new).surplus == (new,)
    assert held(subject, old, brought(taken=True)).surplus == (old,)


def test_node_of_a_claim_is_no_brought_one_whatever_its_provisioner_labels() -> None:
    subject = workspace()
    of_claim = node(name="n1", labels=KAITO_LABELS)
    by_name = claim(subject, 0, nodeName="n1")
    by_id = claim(subject, 0, providerID=of_claim.provider_id)

    assert held(subject, of_claim, by_name).surplus == ()
    assert held(subject, of_claim, by_id).surplus == ()
    assert held(subject, of_claim, claim(subject, 0)).surplus != ()


# Brought Nodes


@pytest.mark.parametrize(
    ("one", "is_taken"),
    [
        (brought(), True),
        (brought(labels={"apps": "other"}), False),
        (brought(size=A100.lower()), True),
        (brought(size="Standard_NC40ads_H100_v5"), False),
        (brought(ready="False"), False),
        (brought(gpus=None), False),
        (brought(allocatable={names.NVIDIA_GPU: "0"}), False),
        (brought(deleting=True), False),
        (brought(labels={"karpenter.sh/nodepool": "default"}), False),
        (brought(labels={"kaito.sh/workspace": "other", "kaito.sh/workspacenamespace": "ml"}), False),
        (brought(labels={"kaito.sh/workspace": "chat", "kaito.sh/workspacenamespace": "other"}), False),
        (brought(labels={"kaito.sh/ragengine": "rag"}), False),
        (brought(taints=[]), True),
        (brought(taints=[{"key": "nvidia.com/gpu", "value": "x", "effect": "NoSchedule"}]), True),
        (brought(taints=[{"key": "team", "value": "a", "effect": "PreferNoSchedule"}]), True),
        (brought(taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}]), False),
        (brought(taints=[{"key": "sku", "value": "cpu", "effect": "NoSchedule"}]), False),
        (brought(taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]), False),
        (brought(taints=[{"key": "karpenter.sh/unregistered", "effect": "NoExecute"}]), False),
    ],
)
def test_brought_node_is_taken_if_a_pod_can_run_there(one: Node, is_taken: bool) -> None:
    found = held(workspace(), one)

    assert found.taken == ((one,) if is_taken else ())
    assert len(found.missing) == (0 if is_taken else 1)


def test_tolerations_of_a_template_count() -> None:
    template = {"spec": {"tolerations": [{"key": "team", "operator": "Exists"}], "containers": []}}
    found = held(
        workspace(spec=inference(template=template)),
        brought(taints=[{"key": "team", "value": "a", "effect": "NoExecute"}]),
    )

    assert len(found.taken) == 1


def test_without_a_selector_nobodys_nodes_are_taken() -> None:
    found = held(workspace(resource={"labelSelector": {}, "instanceType": A100}), brought())

    assert found.taken == ()


@pytest.mark.parametrize(
    ("expression", "labels", "is_taken"),
    [
        ({"key": "a", "operator": "In", "values": ["b", "c"]}, {"a": "c"}, True),
        ({"key": "a", "operator": "In", "values": ["b"]}, {}, False),
        ({"key": "a", "operator": "NotIn", "values": ["b"]}, {}, True),
        ({"key": "a", "operator": "NotIn", "values": ["b"]}, {"a": "b"}, False),
        ({"key": "a", "operator": "Exists"}, {"a": ""}, True),
        ({"key": "a", "operator": "Exists"}, {}, False),
        ({"key": "a", "operator": "DoesNotExist"}, {}, True),
        ({"key": "a", "operator": "DoesNotExist"}, {"a": ""}, False),
    ],
)
def test_expressions_choose_as_kubernetes_does(
    expression: dict[str, Any], labels: dict[str, str], is_taken: bool
) -> None:
    subject = workspace(resource={"labelSelector": {"matchExpressions": [expression]}, "instanceType": A100})

    assert bool(held(subject, brought(labels=labels)).taken) is is_taken


def test_group_takes_brought_nodes_together_or_not_at_all_where_there_are_no_claims() -> None:
    subject = three()
    nodes = [brought(f"n{number}") for number in range(3)]

    assert held(subject, *nodes[:2], writes_claims=False).taken == ()
    assert held(subject, *nodes, writes_claims=False).taken == tuple(nodes)
    assert held(subject, *nodes[:2], writes_claims=False).missing == ()
    assert held(subject, brought("n0", taken=True), *nodes[1:], writes_claims=False).taken == tuple(nodes[1:])


def test_nodes_that_are_the_workspaces_own() -> None:
    subject = three()
    well = node(name="b", labels={**KAITO_LABELS, "karpenter.sh/nodepool": "kaito"})
    ill = node(name="a", labels={**KAITO_LABELS, "karpenter.sh/nodepool": "kaito"}, gpus=None)
    going = node(name="c", labels=KAITO_LABELS, deleting=True)
    found = held(subject, well, ill, going)

    assert (found.ready, found.unready) == ((well,), (ill,))


@pytest.mark.parametrize(
    ("nodes", "spec", "found"),
    [
        ([brought()], inference(), A100),
        ([brought(gpus=None)], inference(), A100),
        # Of a selector that chooses system Nodes too
        ([brought("a", size="Standard_D4s_v5", gpus=None), brought("b")], inference(), A100),
        ([brought(size="Standard_D4s_v5", gpus=None)], inference(), ""),
        ([brought(size="Standard_D4s_v5", gpus=None)], inference(template=TEMPLATE), "Standard_D4s_v5"),
        ([brought(size="Standard_NC1_unheard_of")], inference(), "Standard_NC1_unheard_of"),
        ([brought(labels={"karpenter.sh/nodepool": "x"})], inference(), ""),
        ([brought(deleting=True)], inference(), ""),
        ([brought(labels={"apps": "other"})], inference(), ""),
        ([brought(labels={"apps": "other"}, taken=True)], inference(), A100),
        ([], inference(), ""),
    ],
)
def test_size_of_brought_nodes(nodes: list[Node], spec: dict[str, Any], found: str) -> None:
    subject = workspace(resource={"labelSelector": SELECTOR}, spec=spec)

    assert brought_type(subject, nodes, sizes=SIZES) == found
