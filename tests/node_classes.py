"""KaitoNodeClasses for tests, as their authors write them."""

from collections.abc import Mapping
from typing import Any, Final

from fakes.azure import ResourceIds

_GROUP: Final = f"/subscriptions/{ResourceIds().subscription}/resourceGroups/rg-network"
SUBNET: Final = f"{_GROUP}/providers/Microsoft.Network/virtualNetworks/vnet-1/subnets/gpu"
RESERVATION: Final = f"{_GROUP}/providers/Microsoft.Compute/capacityReservationGroups/reserved-1"

# Every field that there is.
FULL: Final[Mapping[str, Any]] = {
    "capacityReservationGroupID": RESERVATION,
    "devicePlugin": "Ignored",
    "gpuDriver": "None",
    "gpuInstanceProfile": "MIG1g",
    "gpuManagementMode": "Unmanaged",
    "labels": {"team": "vision", "example.com/tier": "gold"},
    "maxPods": 30,
    "maxPricePerHour": 8.5,
    "osDiskSizeGB": 256,
    "osDiskType": "Managed",
    "osSKU": "Ubuntu2404",
    "sizePreference": "Listed",
    "spot": {"evictionPolicy": "Deallocate", "maxPrice": 1.25},
    "tags": {"cost center": "4711", "env": ""},
    "taints": [{"key": "example.com/gold", "effect": "NoSchedule", "value": "yes"}],
    "vnetSubnetID": SUBNET,
    "zones": ["1", "3"],
}


def node_class(name: str, **spec: Any) -> dict[str, Any]:
    """Return a class that says this."""
    return {"apiVersion": "kaito.sh/v1alpha1", "kind": "KaitoNodeClass", "metadata": {"name": name}, "spec": spec}


def _taint(**fields: str) -> dict[str, Any]:
    return {"taints": [{"key": "team", "effect": "NoSchedule", **fields}]}


# What a class may say.
ACCEPTED: Final[Mapping[str, dict[str, Any]]] = {
    "every field": dict(FULL),
    "no field": {},
    "bounds from below": {"maxPods": 10, "osDiskSizeGB": 30, "maxPricePerHour": 0.00001, "zones": ["1"]},
    "bounds from above": {
        "maxPods": 250,
        "osDiskSizeGB": 2048,
        "maxPricePerHour": 10000,
        "tags": {"n" * 512: "v" * 256},
    },
    "IDs in any case of letters": {"vnetSubnetID": SUBNET.upper(), "capacityReservationGroupID": RESERVATION.lower()},
    "labels of one's own": {"labels": {"team": "vision", "nvidia.com/mig.config": "all-1g.5gb", "a.b/c_d": ""}},
    "one taint key with two effects": {
        "taints": [{"key": "a.b/c", "effect": "NoSchedule"}, {"key": "a.b/c", "effect": "NoExecute", "value": "x"}]
    },
    "as many tags as Azure takes": {"tags": {f"tag {number}": "" for number in range(48)}},
    "caps that agree": {"maxPricePerHour": 4, "spot": {"maxPrice": 4}},
    "managed GPUs with the driver": {"gpuManagementMode": "Managed", "gpuDriver": "Install"},
}

# What it must not say: words of the answer, and the spec.
REFUSED: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "unknown size preference": ("spec.sizePreference: Unsupported", {"sizePreference": "Random"}),
    "subnet by its name": ("spec.vnetSubnetID", {"vnetSubnetID": "gpu"}),
    "subnet with a path that climbs": ("spec.vnetSubnetID", {"vnetSubnetID": f"{SUBNET}/../default"}),
    "subnet with a query": ("spec.vnetSubnetID", {"vnetSubnetID": f"{SUBNET}?x=y"}),
    "virtual network for a subnet": ("spec.vnetSubnetID", {"vnetSubnetID": SUBNET.partition("/subnets/")[0]}),
    "reservation that is a subnet": ("spec.capacityReservationGroupID", {"capacityReservationGroupID": SUBNET}),
    "49 tags": ("spec.tags: Too many", {"tags": {str(number): "" for number in range(49)}}),
    "tag without a name": ("1 to 512 characters", {"tags": {"": "x"}}),
    "tag with a long name": ("1 to 512 characters", {"tags": {"n" * 513: "x"}}),
    "tag with a long value": ("Too long", {"tags": {"n": "v" * 257}}),
    "tag with a slash": ("none of < > % & \\ ? /", {"tags": {"a/b": "x"}}),
    "tag with a backslash": ("none of < > % & \\ ? /", {"tags": {"a\\b": "x"}}),
    "the controller's tag": ("written by the controller", {"tags": {"GPU-provisioner.kaito.sh.nodeclaim-uid": "x"}}),
    "Windows": ("spec.osSKU: Unsupported", {"osSKU": "Windows2022"}),
    "unknown kind of disk": ("spec.osDiskType: Unsupported", {"osDiskType": "Premium"}),
    "disk below the least": ("greater than or equal to 30", {"osDiskSizeGB": 29}),
    "disk above the most": ("less than or equal to 2048", {"osDiskSizeGB": 2049}),
    "too few pods": ("greater than or equal to 10", {"maxPods": 9}),
    "too many pods": ("less than or equal to 250", {"maxPods": 251}),
    "zone with its region": ("spec.zones[0]", {"zones": ["eastus-1"]}),
    "zone 0": ("spec.zones[0]", {"zones": ["0"]}),
    "one zone twice": ("Duplicate value", {"zones": ["1", "1"]}),
    "price of nothing": ("spec.maxPricePerHour", {"maxPricePerHour": 0}),
    "price as text": ("spec.spot.maxPrice", {"spot": {"maxPrice": "1.5"}}),
    "unlimited as AKS writes it": ("spec.spot.maxPrice", {"spot": {"maxPrice": -1}}),
    "cap of spot above the cap of all": ("not be more than max", {"maxPricePerHour": 1, "spot": {"maxPrice": 2}}),
    "unknown eviction policy": ("spec.spot.evictionPolicy: Unsupported", {"spot": {"evictionPolicy": "Stop"}}),
    "unknown MIG profile": ("spec.gpuInstanceProfile: Unsupported", {"gpuInstanceProfile": "MIG5g"}),
    "unknown driver": ("spec.gpuDriver: Unsupported", {"gpuDriver": "GRID"}),
    "managed GPUs without a driver": ("comes with the driver", {"gpuDriver": "None", "gpuManagementMode": "Managed"}),
    "unknown expectation": ("spec.devicePlugin: Unsupported", {"devicePlugin": "Maybe"}),
    "label of Kubernetes": ("is reserved", {"labels": {"node.kubernetes.io/instance-type": "x"}}),
    "label of AKS": ("is reserved", {"labels": {"kubernetes.azure.com/mode": "System"}}),
    "label of Karpenter": ("is reserved", {"labels": {"karpenter.sh/nodepool": "x"}}),
    "label of ours": ("is reserved", {"labels": {"gpu-provisioner.kaito.sh/agent-pool": "x"}}),
    "label that AKS sets": ("set by AKS", {"labels": {"agentpool": "x"}}),
    "label with an odd key": ("qualified name", {"labels": {"a b": "x"}}),
    "label with an odd value": ("spec.labels.team", {"labels": {"team": "a b"}}),
    "taint without an effect": ("spec.taints[0].effect: Required", {"taints": [{"key": "a"}]}),
    "taint of unknown effect": ("spec.taints[0].effect: Unsupported", _taint(effect="Never")),
    "taint of AKS": ("is reserved", _taint(key="kubernetes.azure.com/scalesetpriority")),
    "taint with an odd key": ("spec.taints[0].key", _taint(key="a b")),
    "taint with an odd value": ("spec.taints[0].value", _taint(value="a b")),
    "one taint twice": ("Duplicate value", {"taints": [*_taint()["taints"], *_taint(value="x")["taints"]]}),
}  # fmt: skip
# What the schema refuses and the controller makes the best of: the lower cap holds, and a zone that is there twice.
HARMLESS: Final = frozenset({"cap of spot above the cap of all", "one zone twice"})
