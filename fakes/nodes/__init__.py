"""What AKS and the kubelet do once a VM exists: Nodes join, GPUs register, pods run; all goes wrong on request.

Nothing is simulated that a real control plane does: pods come from the Job, StatefulSet and DaemonSet controllers and
the scheduler; here they are only run.
"""

from fakes.nodes.fake import FakeNodes
from fakes.nodes.faults import Fault, FaultKind
from fakes.nodes.journal import Happening, Journal, What
from fakes.nodes.machines import Machine, MachineSource
from fakes.nodes.pod_faults import PodFault
from fakes.nodes.running import Runner
from fakes.nodes.settings import NodeSettings

__all__ = [
    "FakeNodes",
    "Fault",
    "FaultKind",
    "Happening",
    "Journal",
    "Machine",
    "MachineSource",
    "NodeSettings",
    "PodFault",
    "Runner",
    "What",
]
