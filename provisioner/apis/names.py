"""Labels, annotations, taints and finalizers, exactly as Karpenter, KAITO and AKS spell them."""

from typing import Final

# karpenter.sh/v1
KARPENTER_GROUP: Final = "karpenter.sh"
NODECLAIM_VERSION: Final = "v1"
NODECLAIM_PLURAL: Final = "nodeclaims"
NODECLAIM_API_VERSION: Final = f"{KARPENTER_GROUP}/{NODECLAIM_VERSION}"
NODECLAIM_KIND: Final = "NodeClaim"

TERMINATION_FINALIZER: Final = "karpenter.sh/termination"

NODEPOOL_LABEL: Final = "karpenter.sh/nodepool"
REGISTERED_LABEL: Final = "karpenter.sh/registered"
INITIALIZED_LABEL: Final = "karpenter.sh/initialized"
CAPACITY_TYPE_LABEL: Final = "karpenter.sh/capacity-type"
DO_NOT_SYNC_TAINTS_LABEL: Final = "karpenter.sh/do-not-sync-taints"
UNREGISTERED_TAINT_KEY: Final = "karpenter.sh/unregistered"
# On a Node that is being taken down: nothing new is scheduled to it.
DISRUPTED_TAINT_KEY: Final = "karpenter.sh/disrupted"

DO_NOT_DISRUPT_ANNOTATION: Final = "karpenter.sh/do-not-disrupt"
# RFC 3339: when the pods of a claim's Node are deleted, whatever keeps them from being evicted.
TERMINATION_TIMESTAMP_ANNOTATION: Final = "karpenter.sh/nodeclaim-termination-timestamp"

CAPACITY_TYPE_ON_DEMAND: Final = "on-demand"
CAPACITY_TYPE_SPOT: Final = "spot"

# kaito.sh
KAITO_GROUP: Final = "kaito.sh"
NODECLASS_KIND: Final = "KaitoNodeClass"
# The one that KAITO names and does not make; where it is missing, defaults hold.
DEFAULT_NODECLASS: Final = "default"
NODECLASS_VERSION: Final = "v1alpha1"
NODECLASS_PLURAL: Final = "kaitonodeclasses"
# Karpenter labels claims and nodes with `<group>/<lower-case kind of the NodeClass>`.
NODECLASS_LABEL: Final = f"{KAITO_GROUP}/{NODECLASS_KIND.lower()}"
# What the class said when the claim's pool was asked for, and by which rule that was summed up.
NODECLASS_HASH_ANNOTATION: Final = f"{NODECLASS_LABEL}-hash"
NODECLASS_HASH_VERSION_ANNOTATION: Final = f"{NODECLASS_LABEL}-hash-version"
WORKSPACE_LABEL: Final = "kaito.sh/workspace"
RAGENGINE_LABEL: Final = "kaito.sh/ragengine"
# A claim with one of these is ours whatever its NodeClass says: claims older than nodeClassRef.group exist.
KAITO_OWNER_LABELS: Final = (WORKSPACE_LABEL, RAGENGINE_LABEL)
NODE_IMAGE_FAMILY_ANNOTATION: Final = "kaito.sh/node-image-family"

# kaito.sh Workspace
WORKSPACE_KIND: Final = "Workspace"
WORKSPACE_VERSION: Final = "v1beta1"
WORKSPACE_PLURAL: Final = "workspaces"
WORKSPACE_API_VERSION: Final = f"{KAITO_GROUP}/{WORKSPACE_VERSION}"
WORKSPACE_FINALIZER: Final = "workspace.finalizer.kaito.sh"
WORKSPACE_NAMESPACE_LABEL: Final = "kaito.sh/workspacenamespace"
ENABLE_LOAD_BALANCER_ANNOTATION: Final = "kaito.sh/enablelb"
NODE_CLASS_NAME_ANNOTATION: Final = "kaito.sh/node-class-name"
# On a NodeClaim that a Workspace has made: which Workspace, for one of the same name is another.
WORKSPACE_UID_ANNOTATION: Final = "gpu-provisioner.kaito.sh/workspace-uid"
# The label that KAITO and AKS's own tools put on Nodes with NVIDIA GPUs.
ACCELERATOR_LABEL: Final = "accelerator"
ACCELERATOR_NVIDIA: Final = "nvidia"

# Node labels that Azure/gpu-provisioner puts on its agent pools; they are how its pools are told from a user's.
MACHINE_TYPE_LABEL: Final = "kaito.sh/machine-type"
CREATION_TIMESTAMP_LABEL: Final = "kaito.sh/creation-timestamp"

# kubernetes.io
INSTANCE_TYPE_LABEL: Final = "node.kubernetes.io/instance-type"
OS_LABEL: Final = "kubernetes.io/os"
ARCH_LABEL: Final = "kubernetes.io/arch"
REGION_LABEL: Final = "topology.kubernetes.io/region"
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
EXCLUDE_FROM_BALANCERS_LABEL: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
# The kubelet's mark on its copy of a static pod.
MIRROR_POD_ANNOTATION: Final = "kubernetes.io/config.mirror"

# AKS
AKS_AGENT_POOL_LABEL: Final = "kubernetes.azure.com/agentpool"
AKS_NODE_IMAGE_VERSION_LABEL: Final = "kubernetes.azure.com/node-image-version"
SKU_NAME_LABEL: Final = "karpenter.azure.com/sku-name"

# Ours. What a restart needs to find a claim's agent pool again, written before the pool is asked for.
AGENT_POOL_ANNOTATION: Final = "gpu-provisioner.kaito.sh/agent-pool"
INSTANCE_TYPE_ANNOTATION: Final = "gpu-provisioner.kaito.sh/instance-type"
# By which MIG profile the GPUs of that size are partitioned; without it they are whole.
GPU_INSTANCE_PROFILE_ANNOTATION: Final = "gpu-provisioner.kaito.sh/gpu-instance-profile"
# What its node class said at launch of the device plugin, where that was not the default; the class may be gone since.
DEVICE_PLUGIN_ANNOTATION: Final = "gpu-provisioner.kaito.sh/device-plugin"
# On a Workspace: how many Nodes it is to have, for clusters whose CRD writes a resource.count of 1 by itself.
NODE_COUNT_ANNOTATION: Final = "gpu-provisioner.kaito.sh/node-count"

# Tags on the agent pool: proof of ownership. A tag name must not contain `<>%&\?/`, hence no slash.
CLAIM_TAG: Final = "gpu-provisioner.kaito.sh.nodeclaim"
CLAIM_UID_TAG: Final = "gpu-provisioner.kaito.sh.nodeclaim-uid"

NVIDIA_GPU: Final = "nvidia.com/gpu"
AMD_GPU: Final = "amd.com/gpu"
# KAITO requests `storage` and means the OS disk. No Node ever offers a resource of that name.
STORAGE: Final = "storage"
