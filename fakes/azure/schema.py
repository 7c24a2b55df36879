"""The properties of an agent pool in api-version 2026-08-01: their types and values, and which never change."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fakes.azure import errors

# What Go decodes into a type, and how its decoder calls what it finds instead.
_PYTHON: Final[Mapping[str, type | tuple[type, ...]]] = {
    "int32": int,
    "float32": (int, float),
    "string": str,
    "bool": bool,
    "[]string": list,
    "map[string]string": dict,
    "struct": dict,
}
_JSON_KINDS: Final = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}


@dataclass(frozen=True, kw_only=True)
class Property:
    """A property; `values` are all it takes, empty for any. A fixed one never changes once the pool exists."""

    type: str = "string"
    fixed: bool = False
    values: frozenset[str] = frozenset()


def _one_of(*values: str, fixed: bool = False) -> Property:
    return Property(values=frozenset(values), fixed=fixed)


_STRING: Final = Property()
_FIXED: Final = Property(fixed=True)
_INT: Final = Property(type="int32")
_BOOL: Final = Property(type="bool")
_STRUCT: Final = Property(type="struct")
_FIXED_STRUCT: Final = Property(type="struct", fixed=True)

# Others are dropped unread, as Go's decoder does.
PROPERTIES: Final[Mapping[str, Property]] = {
    "artifactStreamingProfile": _STRUCT,
    "availabilityZones": Property(type="[]string", fixed=True),
    "capacityReservationGroupID": _FIXED,
    "count": _INT,
    "creationData": _STRUCT,
    "enableAutoScaling": _BOOL,
    "enableEncryptionAtHost": Property(type="bool", fixed=True),
    "enableFIPS": _BOOL,
    "enableNodePublicIP": Property(type="bool", fixed=True),
    "enableUltraSSD": Property(type="bool", fixed=True),
    "gatewayProfile": _FIXED_STRUCT,
    "gpuInstanceProfile": _one_of("MIG1g", "MIG2g", "MIG3g", "MIG4g", "MIG7g", fixed=True),
    "gpuProfile": _FIXED_STRUCT,
    "hostGroupID": _FIXED,
    "kubeletConfig": _FIXED_STRUCT,
    "kubeletDiskType": _one_of("OS", "Temporary", fixed=True),
    "linuxOSConfig": _FIXED_STRUCT,
    "localDNSProfile": _STRUCT,
    "maxCount": _INT,
    "maxPods": Property(type="int32", fixed=True),
    "messageOfTheDay": _FIXED,
    "minCount": _INT,
    "mode": _one_of("System", "User", "Gateway"),
    "networkProfile": _STRUCT,
    "nodeLabels": Property(type="map[string]string"),
    "nodePublicIPPrefixID": _FIXED,
    "nodeTaints": Property(type="[]string"),
    "orchestratorVersion": _STRING,
    "osDiskSizeGB": Property(type="int32", fixed=True),
    "osDiskType": _one_of("Managed", "Ephemeral", fixed=True),
    "osSKU": _one_of(
        "Ubuntu",
        "Ubuntu2204",
        "Ubuntu2404",
        "AzureLinux",
        "AzureLinux3",
        "AzureContainerLinux",
        "Windows2019",
        "Windows2022",
        "Windows2025",
        "WindowsAnnual",
    ),
    "osType": _one_of("Linux", "Windows", fixed=True),
    "podIPAllocationMode": _FIXED,
    "podSubnetID": _FIXED,
    "proximityPlacementGroupID": _FIXED,
    "scaleDownMode": _one_of("Delete", "Deallocate"),
    "scaleSetEvictionPolicy": _one_of("Delete", "Deallocate", fixed=True),
    "scaleSetPriority": _one_of("Regular", "Spot", fixed=True),
    "securityProfile": _STRUCT,
    "spotMaxPrice": Property(type="float32", fixed=True),
    "tags": Property(type="map[string]string"),
    "type": _one_of("VirtualMachineScaleSets", fixed=True),
    "upgradeSettings": _STRUCT,
    "vmSize": _FIXED,
    "vnetSubnetID": _FIXED,
    "windowsProfile": _STRUCT,
    "workloadRuntime": _one_of("OCIContainer", "WasmWasi", "KataVmIsolation", fixed=True),
}


def decode(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties that may be set, without nulls. Raises 400 for a wrong type or an unknown value.

    What only AKS sets (`eTag`, `provisioningState`, ...) is no error and is ignored, so that a client may PUT what it
    has read.
    """
    decoded = {}
    for name, known in PROPERTIES.items():
        value = properties.get(name)
        if value is None:
            continue
        _check_type(name, value, known.type)
        if known.values and value not in known.values:
            raise errors.invalid_parameter(
                f"The value of parameter agentPoolProfile.{name} is invalid.", target=f"agentPoolProfile.{name}"
            )
        decoded[name] = value
    return decoded


def _check_type(name: str, value: Any, wanted: str) -> None:
    # A bool is an int to Python, but not to Go.
    if not isinstance(value, _PYTHON[wanted]) or (isinstance(value, bool) and wanted != "bool"):
        raise _wrong_type(name, value, wanted)
    members: list[Any] = []
    match value:
        case dict() if wanted == "map[string]string":
            members = list(value.values())
        case list():
            members = value
    for member in members:
        if not isinstance(member, str):
            raise _wrong_type(name, member, "string")


def _wrong_type(name: str, value: Any, wanted: str) -> errors.AzureError:
    kind = _JSON_KINDS.get(type(value), "null")
    return errors.unmarshal(f"{kind} into Go struct field AgentPoolProperties.properties.{name} of type {wanted}")
