"""What a KaitoNodeClass says becomes of the agent pools and Nodes of its claims, and what is wrong with it is told.

All in one AKS with a virtual network of its own: each test has classes, claims and mostly GPU families of its own.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
import yaml

from fakes.aks import FakeAks
from fakes.azure import Answer, ResourceIds
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.interface import ControlPlane
from fakes.nodes.faults import FaultKind
from tests.claims import A100, kaito_claim
from tests.conftest import SCALE
from tests.kube import CLAIMS, NODE_CLASSES, NODES, Kube, Object, condition, eventually, has_reason, is_true
from tests.node_classes import RESERVATION, SUBNET, node_class
from tests.scenarios.asking import ask
from tests.scenarios.azure_side import Wishes, calls, record_wishes, wait_calls
from tests.scenarios.on_azure import LIST, PUT, pools
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

IDS = ResourceIds()
CLUSTERS_SUBNET, MISSING_SUBNET = IDS.subnet_id("nodes"), IDS.subnet_id("missing")
H100, T4 = "Standard_NC40ads_H100_v5", "Standard_NC4as_T4_v3"
EIGHT = "Standard_ND96asr_v4"
PROFILE = "gpu-provisioner.kaito.sh/gpu-instance-profile"
SUBNETS, RESERVATIONS = "subnets.get", "capacityReservations.list"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    azure = AzureSettings(
        scale=SCALE,
        subnets=(CLUSTERS_SUBNET, SUBNET),
        capacity_reservation_groups={RESERVATION: (A100, f"{H100}/2")},
        prices={f"{A100}/spot": 1.5, f"{H100}/spot": 2.5},
    )
    log = tmp_path_factory.mktemp("node-classes") / "controller.log"
    async with running(control_plane, log=log, azure=azure) as cluster:
        await cluster.controller.wait_started()
        yield cluster


@pytest.fixture
def kube(cluster: Running) -> Kube:
    return cluster.kube


@pytest.fixture
def aks(cluster: Running) -> FakeAks:
    return cluster.aks


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wishes(cluster: Running) -> Wishes:
    return record_wishes(cluster.aks)


def of_class(name: str, class_name: str, *sizes: str, capacity: str = "", zones: tuple[str, ...] = ()) -> Object:
    """Return a claim of a class that allows these sizes."""
    claim = kaito_claim(name, storage=None)
    claim["spec"]["nodeClassRef"]["name"] = class_name
    wanted = {"node.kubernetes.io/instance-type": list(sizes), "topology.kubernetes.io/zone": list(zones)}
    if capacity:
        wanted["karpenter.sh/capacity-type"] = [capacity]
    claim["spec"]["requirements"] = [
        {"key": key, "operator": "In", "values": values} for key, values in wanted.items() if values
    ]
    return claim


def judged(status: str, reason: str) -> Callable[[Object], bool]:
    """Return a predicate: the class is Ready or not, for that reason, at its generation."""

    def check(seen: Object) -> bool:
        ready = condition(seen, "Ready")
        is_current = ready.get("observedGeneration") == seen["metadata"]["generation"]
        return is_current and (ready["status"], ready["reason"]) == (status, reason)

    return check


async def wait_class(kube: Kube, name: str, status: str = "True", reason: str = "Ready") -> str:
    """Wait until the class is judged so; return the message."""

    async def look() -> Object:
        return await kube.get(NODE_CLASSES, name) or {}

    until = judged(status, reason)
    seen = await eventually(look, until=lambda raw: bool(raw) and until(raw), what=f"class {name}: {status}, {reason}")
    return str(condition(seen, "Ready")["message"])


async def write(kube: Kube, name: str, **spec: Any) -> None:
    """Create a class, and wait until it can be used."""
    await kube.create(NODE_CLASSES, node_class(name, **spec))
    await wait_class(kube, name)


async def ready(kube: Kube, claim: Object) -> Object:
    await kube.create(CLAIMS, claim)
    return await kube.wait_claim(claim["metadata"]["name"], is_true("Ready"))


async def node_of(kube: Kube, claim: Object) -> Object:
    node = await kube.get(NODES, claim["status"]["nodeName"])
    assert node is not None
    return node


async def refused(kube: Kube, aks: FakeAks, claim: Object, reason: str) -> str:
    """Have a claim refused without a word to Azure; return why."""
    name = claim["metadata"]["name"]
    await kube.create(CLAIMS, claim)
    seen = await kube.wait_claim(name, has_reason("Launched", reason))
    await wait_calls(aks, LIST, more=2)
    assert calls(aks, PUT, name) == []
    return str(condition(seen, "Launched")["message"])


async def test_what_the_class_says_is_asked_of_aks_and_seen_on_the_node(
    aks: FakeAks, kube: Kube, wishes: Wishes
) -> None:
    await write(
        kube,
        "gold",
        vnetSubnetID=SUBNET,
        capacityReservationGroupID=RESERVATION,
        tags={"cost center": "4711"},
        osSKU="Ubuntu2404",
        osDiskType="Managed",
        osDiskSizeGB=300,
        maxPods=42,
        labels={"team": "vision", "apps": "of-the-class"},
        taints=[{"key": "example.com/gold", "value": "yes", "effect": "PreferNoSchedule"}],
    )

    claim = await ready(kube, of_class("wsgold", "gold", A100))

    (wish,) = wishes["wsgold"]
    pool = pools(aks)["wsgold"].properties
    for field, value in {
        "vnetSubnetID": SUBNET,
        "capacityReservationGroupID": RESERVATION,
        "osSKU": "Ubuntu2404",
        "osDiskType": "Managed",
        "osDiskSizeGB": 300,
        "maxPods": 42,
        "nodeTaints": ["sku=gpu:NoSchedule", "example.com/gold=yes:PreferNoSchedule"],
    }.items():
        assert wish[field] == value
        assert pool[field] == value
    assert pool["tags"]["cost center"] == "4711"
    assert pool["tags"].keys() > {"cost center"}
    node = await node_of(kube, claim)
    assert node["metadata"]["labels"]["team"] == "vision"
    assert node["metadata"]["labels"]["apps"] == "phi-4"
    assert node["status"]["capacity"]["pods"] == "42"
    assert {"key": "example.com/gold", "value": "yes", "effect": "PreferNoSchedule"} in node["spec"]["taints"]


async def test_claims_of_other_classes_get_other_pools(aks: FakeAks, kube: Kube, wishes: Wishes) -> None:
    await write(kube, "silver", maxPods=50)

    await ready(kube, of_class("wssilver", "silver", A100))
    await ready(kube, of_class("wsplain", "default", A100))

    assert wishes["wssilver"][0]["maxPods"] == 50
    fields = {"maxPods", "vnetSubnetID", "osDiskType", "gpuProfile", "capacityReservationGroupID"}
    assert wishes["wsplain"][0].keys() & fields == set()
    # The cluster's own.
    assert pools(aks)["wsplain"].properties["vnetSubnetID"] == CLUSTERS_SUBNET


async def test_spot_is_asked_for_within_the_cap_and_not_above_it(aks: FakeAks, kube: Kube, wishes: Wishes) -> None:
    await write(kube, "thrifty", spot={"maxPrice": 2, "evictionPolicy": "Deallocate"})

    claim = await ready(kube, of_class("wsspot", "thrifty", H100, A100, capacity="spot"))

    assert claim["metadata"]["labels"]["node.kubernetes.io/instance-type"] == A100
    (wish,) = wishes["wsspot"]
    asked = {key: wish[key] for key in ("scaleSetPriority", "scaleSetEvictionPolicy", "spotMaxPrice")}
    assert asked == {"scaleSetPriority": "Spot", "scaleSetEvictionPolicy": "Deallocate", "spotMaxPrice": 2.0}
    why = await refused(kube, aks, of_class("wsdear", "thrifty", H100, capacity="spot"), "NoFittingInstanceType")
    assert f"{H100} costs 2.500 $/h as spot, and KaitoNodeClass thrifty allows 2 $/h" in why
    # The cap is not of on-demand VMs.
    await ready(kube, of_class("wsfull", "thrifty", H100))


async def test_claim_for_a_gpu_of_no_named_size_stays_below_the_cap_of_its_class(aks: FakeAks, kube: Kube) -> None:
    await write(kube, "capped", maxPricePerHour=0.5)
    claim = of_class("wscapped", "capped")
    claim["spec"]["resources"] = {"requests": {"nvidia.com/gpu": "1"}}

    # One A10 in six is 0.454 $/h, the next is a T4.
    ended = await ready(kube, claim)

    assert ended["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "Standard_NV6ads_A10_v5"
    await kube.patch(NODE_CLASSES, "capped", {"spec": {"maxPricePerHour": 0.1}})
    await wait_class(kube, "capped")
    again = of_class("wsnothing", "capped")
    again["spec"]["resources"] = {"requests": {"nvidia.com/gpu": "1"}}
    why = await refused(kube, aks, again, "NoFittingInstanceType")
    assert "KaitoNodeClass capped allows 0.1 $/h" in why


async def test_node_with_partitioned_gpus_is_ready_with_all_of_their_instances(
    cluster: Running, aks: FakeAks, kube: Kube, wishes: Wishes
) -> None:
    await write(kube, "sliced", gpuInstanceProfile="MIG1g")
    lost = aks.nodes.add_fault(FaultKind.FEWER_GPUS, pool="wssliced", gpus=55)
    claim = of_class("wssliced", "sliced", T4, EIGHT)
    await kube.create(CLAIMS, claim)

    def waits(seen: Object) -> bool:
        initialized = condition(seen, "Initialized")
        return "55 of 56 nvidia.com/gpu registered on Node aks-wssliced-" in initialized.get("message", "")

    seen = await kube.wait_claim("wssliced", waits)
    assert seen["metadata"]["annotations"][PROFILE] == "MIG1g"
    assert wishes["wssliced"][0]["gpuInstanceProfile"] == "MIG1g"

    # How many were asked for is known to a controller that starts anew, whatever the class says by then.
    await cluster.controller.stop()
    await kube.delete(NODE_CLASSES, "sliced")
    await cluster.controller.start()
    await wait_calls(aks, LIST, more=2)
    assert waits(await kube.wait_claim("wssliced", lambda _: True))
    aks.nodes.clear(lost)
    claim = await kube.wait_claim("wssliced", is_true("Ready"))
    assert claim["status"]["allocatable"]["nvidia.com/gpu"] == "56"


async def test_zones_are_those_that_claim_and_class_allow(aks: FakeAks, kube: Kube, wishes: Wishes) -> None:
    await write(kube, "zonal", zones=["2", "3"])

    claim = await ready(kube, of_class("wszonal", "zonal", A100))

    # The size is in the zones 1 and 3.
    assert wishes["wszonal"][0]["availabilityZones"] == ["3"]
    assert claim["metadata"]["labels"]["topology.kubernetes.io/zone"] == "eastus-3"
    assert (await node_of(kube, claim))["metadata"]["labels"]["topology.kubernetes.io/zone"] == "eastus-3"
    why = await refused(kube, aks, of_class("wsapart", "zonal", A100, zones=("eastus-1",)), "ContradictoryRequirements")
    assert "KaitoNodeClass zonal allows eastus-2 and eastus-3 alone" in why


async def test_class_whose_subnet_is_missing_keeps_its_claims_waiting_until_it_is_corrected(
    aks: FakeAks, kube: Kube, wishes: Wishes
) -> None:
    # At the same time: the claim does not get ahead of the check.
    await kube.create(NODE_CLASSES, node_class("astray", vnetSubnetID=MISSING_SUBNET))
    claim = of_class("wsastray", "astray", A100)
    await kube.create(CLAIMS, claim)

    told = await wait_class(kube, "astray", "False", "SubnetNotFound")
    assert f"there is no subnet {MISSING_SUBNET}" in told
    seen = await kube.wait_claim("wsastray", has_reason("Launched", "NodeClassNotReady"))
    assert (
        "KaitoNodeClass astray is not Ready: spec.vnetSubnetID: there is no subnet"
        in condition(seen, "Launched")["message"]
    )
    await wait_calls(aks, LIST, more=2)
    assert "wsastray" not in wishes
    reads = aks.azure.calls.count(SUBNETS)

    await kube.patch(NODE_CLASSES, "astray", {"spec": {"vnetSubnetID": SUBNET}})
    await wait_class(kube, "astray")
    await kube.wait_claim("wsastray", is_true("Ready"))
    assert [wish["vnetSubnetID"] for wish in wishes["wsastray"]] == [SUBNET]
    assert aks.azure.calls.count(SUBNETS) - reads <= 1


async def test_on_demand_vms_are_of_what_is_reserved_however_the_controller_has_come_to_know_it(
    cluster: Running, aks: FakeAks, kube: Kube, wishes: Wishes
) -> None:
    await write(kube, "reserved", capacityReservationGroupID=RESERVATION)

    # The cheaper T4 is not reserved, and the H100 is in a zone that nobody asks for.
    await ready(kube, of_class("wsreserved", "reserved", T4, H100, A100))
    assert pools(aks)["wsreserved"].properties["vmSize"] == A100
    assert pools(aks)["wsreserved"].properties["capacityReservationGroupID"] == RESERVATION
    why = await refused(kube, aks, of_class("wsunreserved", "reserved", T4), "NoFittingInstanceType")
    assert f"{T4} is not reserved in the capacity reservation group of KaitoNodeClass reserved" in why
    await ready(kube, of_class("wsinzone", "reserved", T4, H100, A100, zones=("eastus-2",)))
    assert pools(aks)["wsinzone"].properties["vmSize"] == H100

    # A controller that starts anew finds out before it asks for a pool, by one question, whoever names the group.
    await write(kube, "reserved-too", capacityReservationGroupID=RESERVATION)
    reads = aks.azure.calls.count(RESERVATIONS)
    await cluster.controller.stop()
    await kube.create(CLAIMS, of_class("wsafter", "reserved", T4, A100))
    await cluster.controller.start()
    await kube.wait_claim("wsafter", is_true("Launched"))
    assert [wish["vmSize"] for wish in wishes["wsafter"]] == [A100]
    assert aks.azure.calls.count(RESERVATIONS) == reads + 1


async def test_group_without_reservations_keeps_claims_waiting(aks: FakeAks, kube: Kube) -> None:
    empty = IDS.reservation_id("empty")
    aks.azure.settings.capacity_reservation_groups = {**aks.azure.settings.capacity_reservation_groups, empty: ()}
    await kube.create(NODE_CLASSES, node_class("hollow", capacityReservationGroupID=empty))
    told = await wait_class(kube, "hollow", "False", "CapacityReservationGroupEmpty")
    assert f"nothing is reserved in the capacity reservation group {empty}" in told
    why = await refused(kube, aks, of_class("wshollow", "hollow", A100), "NodeClassNotReady")
    assert "nothing is reserved" in why


async def test_class_that_names_nothing_of_azures_costs_no_call(aks: FakeAks, kube: Kube) -> None:
    before = aks.azure.calls.count(SUBNETS) + aks.azure.calls.count(RESERVATIONS)
    await write(kube, "modest", maxPods=60, tags={"a": "b"}, zones=["1"], gpuInstanceProfile="MIG7g")
    assert aks.azure.calls.count(SUBNETS) + aks.azure.calls.count(RESERVATIONS) == before


async def test_class_that_no_size_of_the_region_does_for_says_so(kube: Kube) -> None:
    await kube.create(NODE_CLASSES, node_class("nowhere", zones=["7"]))
    told = await wait_class(kube, "nowhere", "False", "NoSuitableVMSize")
    assert told.startswith("spec.zones: no VM size")
    await kube.patch(NODE_CLASSES, "nowhere", {"spec": {"zones": ["1"]}})
    await wait_class(kube, "nowhere")


async def test_identity_that_may_not_read_networks_can_use_their_subnets(aks: FakeAks, kube: Kube) -> None:
    body = {"error": {"code": "AuthorizationFailed", "message": "The client does not have authorization."}}
    fault = aks.azure.add_fault(Answer(operation=SUBNETS, status=403, body=body, times=None))
    # Another one: what is known of the other is not asked for again.
    other = IDS.subnet_id("unread")
    aks.azure.settings.subnets = (*aks.azure.settings.subnets, other)

    await kube.create(NODE_CLASSES, node_class("unseen", vnetSubnetID=other))

    told = await wait_class(kube, "unseen")
    assert "Not checked: the subnet of spec.vnetSubnetID" in told
    assert "Microsoft.Network/virtualNetworks/subnets/read" in told
    await ready(kube, of_class("wsunseen", "unseen", A100))
    assert pools(aks)["wsunseen"].properties["vnetSubnetID"] == other
    aks.azure.faults.remove(fault)


async def test_node_whose_gpus_are_somebody_elses_matter_is_ready_without_them(aks: FakeAks, kube: Kube) -> None:
    await write(kube, "byo", gpuDriver="None", devicePlugin="Ignored")
    fault = aks.nodes.add_fault(FaultKind.DRIVER_MISSING, pool="wsbyo")

    claim = await ready(kube, of_class("wsbyo", "byo", A100))

    assert pools(aks)["wsbyo"].properties["gpuProfile"] == {"driver": "None"}
    assert claim["status"]["allocatable"].get("nvidia.com/gpu", "0") == "0"

    # Its class may go: nothing is wrong with the Node for that.
    await kube.delete(NODE_CLASSES, "byo")
    await wait_calls(aks, LIST, more=3)
    seen = await kube.wait_claim("wsbyo", is_true("ConsistentStateFound"))
    assert is_true("Ready")(seen)
    assert condition(seen, "Drifted") == {}
    aks.nodes.clear(fault)


async def test_change_of_the_class_is_drift_unless_it_is_about_what_may_be_chosen(aks: FakeAks, kube: Kube) -> None:
    await write(kube, "moving", tags={"env": "test"}, maxPricePerHour=100)
    await ready(kube, of_class("wsmoving", "moving", A100))

    await kube.patch(
        NODE_CLASSES, "moving", {"spec": {"maxPricePerHour": 0.01, "zones": ["2"], "spot": {"maxPrice": 0.01}}}
    )
    await wait_class(kube, "moving")
    await wait_calls(aks, LIST, more=3)
    seen = await kube.wait_claim("wsmoving", is_true("Ready"))
    assert condition(seen, "Drifted") == {}

    await kube.patch(NODE_CLASSES, "moving", {"spec": {"tags": {"env": "production"}}})
    seen = await kube.wait_claim("wsmoving", has_reason("Drifted", "NodeClassDrift"))
    assert is_true("Ready")(seen)


async def test_plan_is_made_with_the_class_in_the_cluster_and_rather_with_the_one_in_the_file(
    aks: FakeAks, kube: Kube
) -> None:
    await write(kube, "planned", maxPods=70, zones=["3"])
    claim = of_class("wsplanned", "planned", A100)
    documents = {"cluster": [claim], "file": [claim, node_class("planned", maxPods=80)]}

    bodies = {}
    for where, given in documents.items():
        planned = await ask(aks, "plan", "-f", "-", "-o", "json", "--show-body", stdin=yaml.safe_dump_all(given))
        assert planned.code == 0, planned.err
        bodies[where] = planned.json["claims"][0]["body"]["properties"]
    wrong = yaml.safe_dump_all([claim, node_class("planned", maxPods=5)])
    unusable = await ask(aks, "plan", "-f", "-", "-o", "json", stdin=wrong)

    assert (bodies["cluster"]["maxPods"], bodies["cluster"]["availabilityZones"]) == (70, ["3"])
    assert (bodies["file"]["maxPods"], "availabilityZones" in bodies["file"]) == (80, False)
    assert (unusable.code, unusable.json["claims"][0]["reason"]) == (3, "NodeClassNotReady")
