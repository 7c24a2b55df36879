"""What a reconcile of a Workspace sees, and what it answers. Plain data: phases turn a View into a Step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.workspace import Workspace
from provisioner.gpus.layout import Layout
from provisioner.gpus.model_facts import ModelFacts
from provisioner.gpus.presets import Preset
from provisioner.kube.objects import Kind
from provisioner.placement.size import Size, Sizes

STATEFUL_SET: Final = Kind(api_version="apps/v1", kind="StatefulSet", plural="statefulsets")
JOB: Final = Kind(api_version="batch/v1", kind="Job", plural="jobs")
SERVICE: Final = Kind(api_version="v1", kind="Service", plural="services")
CONFIG_MAP: Final = Kind(api_version="v1", kind="ConfigMap", plural="configmaps")
NODE_CLAIM: Final = Kind(
    api_version=names.NODECLAIM_API_VERSION,
    kind=names.NODECLAIM_KIND,
    plural=names.NODECLAIM_PLURAL,
    is_namespaced=False,
)
WORKSPACE: Final = Kind(
    api_version=names.WORKSPACE_API_VERSION, kind=names.WORKSPACE_KIND, plural=names.WORKSPACE_PLURAL
)
SECRET: Final = Kind(api_version="v1", kind="Secret", plural="secrets")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a Workspace cannot go on: a condition's reason, and a sentence that names the field and says what to do."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model that a Workspace names, as far as it has to be known. `preset` is None for any other of the Hub."""

    facts: ModelFacts
    preset: Preset | None = None


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """What a Workspace runs on.

    `instance_types` are what its NodeClaims ask for, best first, all with as many GPUs; empty where Nodes are brought.
    `size` is the first of them as far as it is known, `gpus` how many of `gpu_resource` a pod asks for. `layout` is
    None where nothing of ours is served. `disk_gib` is for the Node's OS disk. `why` tells people how it came about.
    """

    nodes: int
    instance_types: tuple[str, ...]
    size: Size | None
    gpu_resource: str
    gpus: int
    disk_gib: int
    layout: Layout | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the Workspace refers to, as last read; of what is not there, there is nothing here.

    `configs` are ConfigMaps' data by name, `secrets` the keys of Secrets by name: never what is in them.
    """

    configs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The StatefulSet or Job as last seen.

    `owner` is the UID of what controls it, `digest` what we applied it with; counts are pods.
    """

    kind: Kind
    namespace: str
    name: str
    uid: str
    resource_version: str
    owner: str
    digest: str
    wanted: int
    ready: int
    is_rolled_out: bool
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    is_failed: bool = False
    is_deleting: bool = False

    @property
    def key(self) -> str:
        """Return namespace and name, which are its Workspace's."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class PodState:
    """One pod of the workload: what it waits for or died of, as the kubelet tells it."""

    name: str
    node_name: str
    phase: str
    is_ready: bool
    reason: str = ""
    message: str = ""
    restarts: int = 0


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What settings say: the serving image, what it is pulled with, and whether NodeClaims are written.

    `hub` is where pods find models, empty for the Hugging Face Hub itself.
    """

    image: str
    pull_secrets: tuple[str, ...] = ()
    writes_claims: bool = True
    hub: str = ""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Which of a Workspace's objects could not be made, and why: in the API server's own words."""

    kind: Kind
    name: str
    message: str


@dataclass(frozen=True, kw_only=True)
class View:
    """Everything that a decision about one Workspace rests on.

    `model` is None where the Workspace names none and until it was resolved, a Problem where it cannot be. `claims` are
    the Workspace's own, `nodes` those that carry its name and brought ones that nobody has. `workload` is None where it
    does not exist, `services` are digests of those that do by name. `pods` are the workload's, none where it is well.
    `refusal` is what the API server has said against the last claim or manifest, None where it took it.
    """

    workspace: Workspace
    now: datetime
    sizes: Sizes
    settings: Serving
    model: Model | Problem | None = None
    inputs: Inputs = Inputs()
    claims: tuple[NodeClaim, ...] = ()
    nodes: tuple[Node, ...] = ()
    workload: Workload | None = None
    services: Mapping[str, str] = field(default_factory=dict)
    pods: tuple[PodState, ...] = ()
    refusal: Refusal | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """An object as it is to be applied; its `metadata` has name, namespace, labels and owner."""

    kind: Kind
    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Doomed:
    """An object that is to be deleted."""

    kind: Kind
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, kw_only=True)
class NodePatch:
    """A merge patch of a Node, valid for the version it was computed from."""

    node: Node
    patch: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A Kubernetes Event about the Workspace."""

    reason: str
    message: str
    is_warning: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is to be done now, carried out in the order of the fields; the first that fails ends it.

    `metadata` and `status` are merge patches, `claims` the bodies of NodeClaims to create: their names follow from the
    Workspace, so that one made twice is one refused. `release` takes our finalizer off.
    """

    metadata: Mapping[str, Any] | None = None
    status: Mapping[str, Any] | None = None
    notices: tuple[Notice, ...] = ()
    node_patches: tuple[NodePatch, ...] = ()
    claims: tuple[Mapping[str, Any], ...] = ()
    manifests: tuple[Manifest, ...] = ()
    deletions: tuple[Doomed, ...] = ()
    release: bool = False
    again_after: timedelta | None = None
