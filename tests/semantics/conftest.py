"""What a Kubernetes API does, held against both control planes. Where the two differ, the real one is right."""

from collections.abc import Iterator

import pytest

from fakes.cluster.interface import ControlPlane
from tests.semantics.client import Kube, Object, eventually, unique
from tests.semantics.things import CRD, CRDS, NODES, is_established, path


@pytest.fixture(scope="session")
def cluster(control_plane: ControlPlane) -> ControlPlane:
    return control_plane


@pytest.fixture(scope="session")
def things(cluster: ControlPlane) -> None:
    """Things are served: custom resources with a schema for everything."""
    client = Kube(cluster)
    client.create(CRDS, CRD)
    eventually(lambda: client.get(f"{CRDS}/{CRD['metadata']['name']}"), until=is_established)
    client.close()


@pytest.fixture
def kube(cluster: ControlPlane, things: None) -> Iterator[Kube]:
    client = Kube(cluster)
    yield client
    client.close()


@pytest.fixture
def namespace(kube: Kube) -> str:
    """A namespace of the test's own, with the account that pods need."""
    made = unique("ns")
    kube.create("/api/v1/namespaces", {"metadata": {"name": made}})
    eventually(lambda: kube.find(f"/api/v1/namespaces/{made}/serviceaccounts/default"))
    return made


def make_node(kube: Kube) -> Object:
    """Make a Ready node which keeps others' pods away by a taint of its name."""
    name = unique("node")
    room = {"cpu": "4", "memory": "8Gi", "pods": "10", "nvidia.com/gpu": "1"}
    return kube.create(
        NODES,
        {
            "metadata": {"name": name, "labels": {"node": name}},
            "spec": {"taints": [{"key": "for", "value": name, "effect": "NoSchedule"}]},
            "status": {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]},
        },
    )


@pytest.fixture
def new_node(kube: Kube) -> Iterator[Object]:
    """A node as it is when it has just joined."""
    made = make_node(kube)
    yield made
    kube.ask("DELETE", path(NODES, made))


@pytest.fixture
def node(kube: Kube, new_node: Object) -> Object:
    """A node that takes pods."""
    return eventually(lambda: kube.get(path(NODES, new_node)), until=lambda seen: len(seen["spec"]["taints"]) == 1)


@pytest.fixture
def second_node(kube: Kube) -> Iterator[Object]:
    """Another node, so that not all of them are in trouble when the first one is."""
    made = make_node(kube)
    yield made
    kube.ask("DELETE", path(NODES, made))
