"""What pods wait for or died of, in KAITO's words."""

from typing import Any

import pytest

from provisioner.workspace.pod_state import parse_pod_state


def container(name: str = "chat", *, ready: bool = False, **states: Any) -> dict[str, Any]:
    last = states.pop("last", {})
    return {"name": name, "ready": ready, "restartCount": 2, "state": states, "lastState": last}


def pod(*containers: dict[str, Any], init: Any = None, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "chat-0"},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Pending", "containerStatuses": list(containers), "initContainerStatuses": init, **status},
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def ended(reason: str = "Error", code: int = 1, message: str = "") -> dict[str, Any]:
    return {"terminated": {"reason": reason, "exitCode": code, "message": message}}


RUNNING: dict[str, Any] = {"running": {"startedAt": "2026-11-21T00:00:00Z"}}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}


@pytest.mark.parametrize(
    ("raw", "reason", "said"),
    [
        (pod(), "", ""),
        ({"metadata": {"name": "chat-0"}}, "", ""),
        (pod(container(**waiting("ContainerCreating"))), "", ""),
        (pod(container(**waiting("PodInitializing"))), "", ""),
        (pod(container(**RUNNING)), "", ""),
        (pod(container(ready=True, **RUNNING)), "", ""),
        (pod(container(**ended("OOMKilled", 137))), "ContainerOOMKilled", "it took more memory than it may"),
        (
            pod(container(last=ended("OOMKilled", 137), **waiting("CrashLoopBackOff"))),
            "ContainerOOMKilled",
            "Container chat was killed",
        ),
        (pod(container(last=ended("OOMKilled", 137), **RUNNING)), "ContainerOOMKilled", "was killed"),
        # It was long ago, and all is well since.
        (pod(container(ready=True, last=ended("OOMKilled", 137), **RUNNING)), "", ""),
        (
            pod(container(**waiting("ImagePullBackOff", 'Back-off pulling "x"'))),
            "ImagePullError",
            'Back-off pulling "x"',
        ),
        (pod(container(**waiting("ErrImagePull"))), "ImagePullError", "Container chat: ErrImagePull"),
        (pod(container(**waiting("InvalidImageName"))), "ImagePullError", ""),
        (pod(container(**waiting("CreateContainerConfigError", 'secret "hf" not found'))), "ContainerStartError", "hf"),
        (
            pod(container(last=ended(message="ValueError: No memory\n"), **waiting("CrashLoopBackOff", "back-off 5m"))),
            "ContainerCrashLoopBackOff",
            "Container chat has ended (exit code 1): ValueError: No memory",
        ),
        (pod(container(**waiting("CrashLoopBackOff", "back-off 5m"))), "ContainerCrashLoopBackOff", "back-off 5m"),
        (pod(container(last=ended(), **RUNNING)), "ContainerCrashLoopBackOff", "see its log"),
        (pod(container(ready=True, last=ended(), **RUNNING)), "", ""),
        (pod(container(**ended("Completed", 0))), "", ""),
        (pod(init=[container("puller-0", **ended(message="401"))]), "ContainerCrashLoopBackOff", "puller-0 has ended"),
        (
            pod(
                container(**waiting("CrashLoopBackOff", "x")),
                container("side", **waiting("ErrImagePull")),
                container("third", **ended("OOMKilled", 137)),
            ),
            "ContainerOOMKilled",
            "third",
        ),
        (pod(phase="Failed", reason="Evicted", message="low on memory"), "PodEvicted", "low on memory"),
        (pod(conditions=[UNSCHEDULABLE]), "Unschedulable", "0/3 nodes"),
        (pod(conditions=[{**UNSCHEDULABLE, "status": "True"}]), "", ""),
    ],
)
def test_what_is_wrong_with_a_pod(raw: dict[str, Any], reason: str, said: str) -> None:
    found = parse_pod_state(raw)

    assert found.reason == reason
    assert said in found.message
    assert bool(found.message) is bool(reason)


def test_pod_that_is_well() -> None:
    found = parse_pod_state(
        pod(container(ready=True, **RUNNING), phase="Running", conditions=[{"type": "Ready", "status": "True"}])
    )

    assert (found.name, found.node_name, found.phase, found.is_ready, found.restarts) == (
        "chat-0",
        "n1",
        "Running",
        True,
        2,
    )
