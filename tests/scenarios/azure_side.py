"""What was asked of Azure, and agent pools as others make them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from fakes.aks import FakeAks
from fakes.azure import Call
from tests.kube import Object, eventually

# A user's own pool as `az aks nodepool add` makes it.
USERS_POOL: Final[Mapping[str, Any]] = {"count": 1, "mode": "User", "vmSize": "Standard_D4s_v5", "osType": "Linux"}

CLAIM_TAG: Final = "gpu-provisioner.kaito.sh.nodeclaim"
CLAIM_UID_TAG: Final = "gpu-provisioner.kaito.sh.nodeclaim-uid"

Wishes = dict[str, list[Mapping[str, Any]]]


def record_wishes(aks: FakeAks) -> Wishes:
    """Return a record, by pool, of the properties of every PUT that gets past authentication and throttling."""
    wishes: Wishes = {}
    put_pool = aks.azure.cluster.put_pool

    def recording(name: str, properties: Mapping[str, Any], **more: Any) -> Any:
        wishes.setdefault(name, []).append(properties)
        return put_pool(name, properties, **more)

    aks.azure.cluster.put_pool = recording  # type: ignore[method-assign]
    return wishes


def calls(aks: FakeAks, operation: str, pool: str) -> list[Call]:
    """Return the calls of an operation for a pool, oldest first; `time` is in simulated seconds."""
    return [call for call in aks.azure.calls if (call.operation, call.pool) == (operation, pool)]


async def wait_calls(aks: FakeAks, operation: str, *, more: int, pool: str = "") -> None:
    """Wait until so many further calls of an operation have been answered, about one pool or any."""

    def answered() -> int:
        return len(calls(aks, operation, pool)) if pool else aks.azure.calls.count(operation)

    before = answered()

    async def further() -> int:
        return answered() - before

    await eventually(further, until=lambda seen: seen >= more, what=f"{more} more {operation} {pool}")


def peers_pool(claim: Object, *, os_disk_gib: int = 87) -> dict[str, Any]:
    """Return the properties that Azure/gpu-provisioner PUTs for a claim that KAITO wrote: no tags, no mode."""
    metadata, spec = claim["metadata"], claim["spec"]
    size = next(r["values"][0] for r in spec["requirements"] if r["key"] == "node.kubernetes.io/instance-type")
    created = datetime.fromisoformat(metadata["creationTimestamp"])
    family = metadata["annotations"]["kaito.sh/node-image-family"]
    return {
        "count": 1,
        "nodeLabels": {
            "karpenter.sh/nodepool": "kaito",
            **metadata["labels"],
            "kaito.sh/machine-type": "gpu" if "Standard_N" in size else "cpu",
            "kaito.sh/creation-timestamp": created.strftime("%Y-%m-%dT%H-%M-%SZ"),
        },
        "nodeTaints": [f"{taint['key']}={taint.get('value', '')}:{taint['effect']}" for taint in spec["taints"]],
        "osDiskSizeGB": os_disk_gib,
        "osSKU": {"azurelinux": "AzureLinux"}.get(family.lower(), "Ubuntu"),
        "osType": "Linux",
        "type": "VirtualMachineScaleSets",
        "vmSize": size,
    }
