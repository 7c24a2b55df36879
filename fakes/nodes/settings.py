"""How long things take on a node, and which of the cluster's habits are on."""

from pydantic import BaseModel, ConfigDict, Field


class NodeSettings(BaseModel):
    """Simulated seconds, except where the name says `real`. Each may change while the nodes run."""

    model_config = ConfigDict(validate_assignment=True, extra="forbid", allow_inf_nan=False)

    join_delay: float = Field(default=60.0, ge=0, description="VM created to Node registered: boot, cloud-init, driver")
    cloud_init_delay: float = Field(
        default=4.0,
        ge=0,
        description="Node registered to its providerID, size, region and zone, by cloud-node-manager; 0: at once",
    )
    ready_delay: float = Field(
        default=30.0, ge=0, description="Node registered to Ready: the network plugin starts (34 s seen on AKS)"
    )
    gpu_delay: float = Field(default=10.0, ge=0, description="device plugin Ready to GPUs in the Node's capacity")

    monitor_grace: float = Field(
        default=50.0,
        ge=0,
        description="last heartbeat to Ready=Unknown; kube-controller-manager's --node-monitor-grace-period since 1.32",
    )
    node_removal_delay: float | None = Field(
        default=60.0,
        ge=0,
        description="VM gone to Node deleted by the cloud controller manager; None: the Node stays, NotReady",
    )
    reregister_after: float | None = Field(
        default=None,
        ge=0,
        description="Node deleted to registered again; None as in life: a kubelet registers once, at its start",
    )

    pod_start_delay: float = Field(default=3.0, ge=0, description="pod on a Ready Node to containers running")
    pod_ready_delay: float = Field(
        default=5.0, ge=0, description="running to Ready, for pods with a readiness or startup probe; else at once"
    )
    job_duration: float = Field(
        default=30.0, ge=0, description="running to finished, for pods whose restartPolicy lets them finish"
    )
    termination_delay: float = Field(
        default=2.0, ge=0, description="deletion asked for to gone, when the pod's grace period is not shorter"
    )
    orphan_delay: float = Field(
        default=40.0, ge=0, description="Node gone to its pods deleted by force; the pod garbage collector's quarantine"
    )

    lease_interval_real: float = Field(
        default=10.0,
        gt=0,
        description="between two Lease renewals, real seconds: the node lifecycle controller counts real ones",
    )
    status_interval_real: float = Field(
        default=300.0, gt=0, description="between two unchanged status reports, real seconds; nodeStatusReportFrequency"
    )

    node_resource_group: str | None = Field(
        default=None, description="label kubernetes.azure.com/cluster; None: as the providerID spells it"
    )
    node_network: str = Field(default="10.224.0.0/16", description="subnet of the Nodes; AKS's default")
    pod_network: str = Field(default="10.240.0.0/12", description="overlay of the pods, wide enough for any cluster")
    concurrency: int = Field(default=16, ge=1, description="writes in flight for Nodes, and again for pods")
