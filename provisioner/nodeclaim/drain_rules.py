"""Which pods have to leave a Node that is taken down, by the rules of Karpenter (pkg/utils/pod/scheduling.go)."""

from datetime import datetime, timedelta
from typing import Final

from provisioner.apis.pod import Pod
from provisioner.apis.taints import DISRUPTED_TAINT

# A pod that is still there so long after its grace has run out waits for a kubelet that does not answer any more, or
# for a finalizer: no drain makes it go.
STUCK: Final = timedelta(minutes=1)


def is_drainable(pod: Pod, *, now: datetime) -> bool:
    """Tell whether draining the Node makes the pod go, or it stays until the VM itself is gone."""
    return not (pod.tolerates(DISRUPTED_TAINT) or _is_static(pod) or _is_stuck(pod, now=now))


def leaves(pod: Pod, *, now: datetime) -> bool:
    """Tell whether the pod has to leave before the Node is taken down; one whose containers have ended need not."""
    return not pod.is_terminal and is_drainable(pod, now=now)


def _is_static(pod: Pod) -> bool:
    # The kubelet runs it from a file, and makes its mirror anew whenever somebody deletes that.
    return pod.is_mirror or "Node" in pod.owner_kinds


def _is_stuck(pod: Pod, *, now: datetime) -> bool:
    return pod.deleted is not None and now - pod.deleted > STUCK
