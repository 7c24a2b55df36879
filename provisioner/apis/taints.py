"""Node taints."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from provisioner.apis.names import DISRUPTED_TAINT_KEY, UNREGISTERED_TAINT_KEY

Effect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class Taint(BaseModel):
    """A taint; two are the same when key, value and effect are (as Karpenter compares them)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    value: str = ""
    effect: Effect

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"

    def to_dict(self) -> dict[str, Any]:
        """Return the taint as the Kubernetes API takes it, `timeAdded` left to the server's callers."""
        return {"key": self.key, **({"value": self.value} if self.value else {}), "effect": self.effect}


UNREGISTERED_TAINT: Final = Taint(key=UNREGISTERED_TAINT_KEY, effect="NoExecute")
DISRUPTED_TAINT: Final = Taint(key=DISRUPTED_TAINT_KEY, effect="NoSchedule")

# Taints that vanish by themselves while a node starts: karpenter, pkg/scheduling/taints.go.
KNOWN_EPHEMERAL_TAINTS: Final = (
    Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule"),
    Taint(key="node.kubernetes.io/not-ready", effect="NoExecute"),
    Taint(key="node.kubernetes.io/unreachable", effect="NoSchedule"),
    Taint(key="node.cloudprovider.kubernetes.io/uninitialized", value="true", effect="NoSchedule"),
    UNREGISTERED_TAINT,
)
_EPHEMERAL_PREFIX: Final = "readiness.k8s.io/"


def is_ephemeral(taint: Taint) -> bool:
    """Tell whether the taint belongs to a starting node and goes away without us."""
    return taint in KNOWN_EPHEMERAL_TAINTS or taint.key.startswith(_EPHEMERAL_PREFIX)
