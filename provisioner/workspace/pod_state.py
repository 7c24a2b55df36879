"""What a pod of a Workspace waits for or died of, in KAITO's words and in the kubelet's own."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from provisioner.workspace.view import PodState

_IMAGE: Final = frozenset(
    {
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_START: Final = frozenset(
    {
        "CreateContainerConfigError",
        "PreCreateHookError",
        "CreateContainerError",
        "PreStartHookError",
        "RunContainerError",
        "PostStartHookError",
    }
)
_CRASH: Final = "CrashLoopBackOff"
_OOM: Final = "OOMKilled"


def parse_pod_state(raw: Mapping[str, Any]) -> PodState:
    """Read a Pod as the API server sent it. Raises KeyError where it has no name."""
    status = raw.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    conditions = {str(c.get("type")): c for c in status.get("conditions") or ()}
    reason, message = _trouble(status, containers, conditions)
    return PodState(
        name=raw["metadata"]["name"],
        node_name=(raw.get("spec") or {}).get("nodeName") or "",
        phase=status.get("phase") or "",
        is_ready=conditions.get("Ready", {}).get("status") == "True",
        reason=reason,
        message=message,
        restarts=sum(int(container.get("restartCount") or 0) for container in containers),
    )


def _trouble(
    status: Mapping[str, Any], containers: Iterable[Mapping[str, Any]], conditions: Mapping[str, Mapping[str, Any]]
) -> tuple[str, str]:
    """Return a reason and what to read about it, empty where nothing is wrong."""
    found = [_of_container(container) for container in containers]
    worst = min((trouble for trouble in found if trouble), key=lambda trouble: trouble[0], default=None)
    if worst is not None:
        return worst[1], worst[2]
    if status.get("reason") == "Evicted":
        return "PodEvicted", str(status.get("message") or "The kubelet has evicted the pod.")
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return "Unschedulable", str(scheduled.get("message") or "No Node can take the pod.")
    return "", ""


def _of_container(container: Mapping[str, Any]) -> tuple[int, str, str] | None:
    """Return rank, reason and message of what is wrong with a container; the lowest rank tells most."""
    state, last = container.get("state") or {}, container.get("lastState") or {}
    ended = state.get("terminated") or last.get("terminated") or {}
    waiting = state.get("waiting") or {}
    why, said = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    # What the program wrote at its end says more than that it is started again.
    word = str(ended.get("message") or "").strip()
    name = container.get("name", "")
    if state.get("running") and container.get("ready"):
        # Whatever it has died of, that was before.
        return None
    if ended.get("reason") == _OOM:
        return 0, "ContainerOOMKilled", f"Container {name} was killed: it took more memory than it may. {word}".strip()
    if why in _IMAGE:
        return 1, "ImagePullError", f"Container {name}: {said or why}"
    if why in _START:
        return 2, "ContainerStartError", f"Container {name}: {said or why}"
    failed = ended and ended.get("exitCode") not in (0, None)
    if why == _CRASH or failed:
        code = f" (exit code {ended.get('exitCode')})" if ended else ""
        return 3, "ContainerCrashLoopBackOff", f"Container {name} has ended{code}: {word or said or 'see its log'}"
    return None
