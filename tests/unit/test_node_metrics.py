"""What becomes of Nodes and their pods, under the names that Karpenter's dashboards and alerts know."""

from datetime import timedelta

from provisioner.apis import names
from provisioner.apis.node import Node
from provisioner.kube.metrics import Registry
from provisioner.nodeclaim.node_metrics import NodeMetrics
from tests.unit.builders import NOW, claim, node
from tests.unit.pod_builders import pod

LABELS = {
    names.NODEPOOL_LABEL: "kaito",
    names.ZONE_LABEL: "eastus-1",
    names.REGION_LABEL: "eastus",
    names.ARCH_LABEL: "amd64",
    names.OS_LABEL: "linux",
    names.CAPACITY_TYPE_LABEL: "spot",
    names.INSTANCE_TYPE_LABEL: "Standard_NC24ads_A100_v4",
}


class World:
    """A registry, and the Nodes that there are."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = list(nodes)
        self.registry = Registry()
        self.metrics = NodeMetrics(self.registry, nodes=lambda: self.nodes, now=lambda: NOW)

    def lines(self, name: str) -> list[str]:
        """Return the samples of a metric without its name."""
        lines = self.registry.expose().splitlines()
        return [line.removeprefix(name) for line in lines if line.startswith(name + "{")]


def old(age: timedelta) -> Node:
    return node("w1", labels=LABELS, created=NOW - age)


def test_node_that_is_gone_is_timed_from_the_request() -> None:
    world = World()
    for seconds in (10, 20, 30):
        world.metrics.terminated(old(timedelta(hours=3)), since=NOW - timedelta(seconds=seconds))
    assert world.lines("karpenter_nodes_termination_duration_seconds") == [
        '{nodepool="kaito",quantile="0"} 10',
        '{nodepool="kaito",quantile="0.5"} 20',
        '{nodepool="kaito",quantile="0.9"} 30',
        '{nodepool="kaito",quantile="0.99"} 30',
        '{nodepool="kaito",quantile="1"} 30',
    ]
    assert world.lines("karpenter_nodes_termination_duration_seconds_count") == ['{nodepool="kaito"} 3']
    assert "# TYPE karpenter_nodes_termination_duration_seconds summary" in world.registry.expose()


def test_node_that_is_gone_is_counted() -> None:
    world = World()
    world.metrics.terminated(old(timedelta(hours=3)), since=NOW)
    assert world.lines("karpenter_nodes_terminated_total") == ['{nodepool="kaito",zone="eastus-1"} 1']


def test_age_of_a_node_that_is_gone_is_measured_in_days() -> None:
    world = World()
    for age in (timedelta(minutes=15), timedelta(days=2), timedelta(days=31)):
        world.metrics.terminated(old(age), since=NOW)
    buckets = world.lines("karpenter_nodes_lifetime_duration_seconds_bucket")
    assert buckets[0] == '{nodepool="kaito",le="900"} 1'
    assert buckets[-2:] == ['{nodepool="kaito",le="2592000"} 2', '{nodepool="kaito",le="+Inf"} 3']
    assert len(buckets) == 22
    assert '{nodepool="kaito",le="172800"} 2' in buckets


def test_clock_that_goes_back_measures_nothing_negative() -> None:
    world = World()
    world.metrics.terminated(old(timedelta(seconds=-5)), since=NOW + timedelta(seconds=5))
    assert world.lines("karpenter_nodes_termination_duration_seconds_sum") == ['{nodepool="kaito"} 0']
    assert world.lines("karpenter_nodes_lifetime_duration_seconds_sum") == ['{nodepool="kaito"} 0']


def test_node_that_has_registered_or_is_drained_is_counted() -> None:
    world = World()
    world.metrics.created(claim(labels=LABELS))
    world.metrics.drained(old(timedelta(hours=3)))
    assert world.lines("karpenter_nodes_created_total") == ['{nodepool="kaito",zone="eastus-1"} 1']
    assert world.lines("karpenter_nodes_drained_total") == ['{nodepool="kaito"} 1']


def test_pods_that_have_to_move_are_counted_with_the_claim() -> None:
    world = World()
    world.metrics.pods_disrupted(
        claim(labels=LABELS, terminationGracePeriod="1h"),
        [
            pod("a"),
            pod("b", phase="Pending"),
            pod("done", phase="Succeeded"),
            pod("going", deleted=NOW),
            pod("static", mirror=True),
            pod("static-too", owner="Node"),
            pod("daemon", owner="DaemonSet"),
        ],
        reason="expired",
    )
    labels = (
        'reason="expired",nodepool="kaito",capacity_type="spot",consolidation_policy="",termination_mode="eventual"'
    )
    assert world.lines("karpenter_pods_disruption_initiated_total") == [f"{{{labels}}} 2"]


def test_nodes_are_shown_as_they_are() -> None:
    world = World(
        node(
            "w1",
            labels=LABELS,
            created=NOW - timedelta(seconds=90),
            allocatable={
                "cpu": "3860m",
                "memory": "1Ki",
                "ephemeral-storage": "10",
                "nvidia.com/gpu": "0",
                "hugepages-2Mi": "0",
                "odd": "many",
            },
        )
    )
    (name,) = (each.name for each in world.nodes)
    labels = (
        'arch="amd64",capacity_type="spot",instance_type="Standard_NC24ads_A100_v4",nodepool="kaito",os="linux",'
        f'region="eastus",zone="eastus-1",node_name="{name}",managed="true"'
    )
    assert world.lines("karpenter_nodes_allocatable") == [
        f'{{{labels},resource_type="{resource}"}} {amount}'
        for resource, amount in (
            ("cpu", "3.86"),
            ("memory", "1024"),
            ("ephemeral_storage", "10"),
            ("nvidia.com/gpu", "0"),
            ("odd", "0"),
        )
    ]
    assert world.lines("karpenter_nodes_current_lifetime_seconds") == [f"{{{labels}}} 90"]
    world.nodes.clear()
    assert world.lines("karpenter_nodes_allocatable") == []
    assert world.lines("karpenter_nodes_current_lifetime_seconds") == []


def test_a_thousand_nodes_are_shown_each() -> None:
    world = World(*(node(f"w{number}") for number in range(1000)))
    shown = world.lines("karpenter_nodes_allocatable")
    assert len(shown) == sum(len(each.allocatable) for each in world.nodes)
    assert not any('node_name="other"' in line for line in shown)
