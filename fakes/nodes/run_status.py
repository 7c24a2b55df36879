"""The status a kubelet writes for a pod that really runs. Pure."""

import hashlib

from fakes.nodes.api import Object, uid_of
from fakes.nodes.conditions import differ, merged, status_patch
from fakes.nodes.pod_status import PHASES, conditions_at, is_changed
from fakes.nodes.running import ContainerRun, PodRun


def report_run(pod: Object, run: PodRun, *, host_ip: str, pod_ip: str, now: str) -> Object | None:
    """Return the patch that brings a pod's status to how it stands; None when it says so already."""
    stage = run.stage
    status: Object = {
        "phase": PHASES[stage],
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "podIP": pod_ip,
        "podIPs": [{"ip": pod_ip}],
        "startTime": pod["status"].get("startTime") or now,
        "containerStatuses": [_status(pod, one, of="containers") for one in run.containers],
    }
    if run.init_containers:
        status["initContainerStatuses"] = [_status(pod, one, of="initContainers") for one in run.init_containers]
    wanted = conditions_at(pod, stage)
    if not is_changed(pod["status"], status) and not differ(pod, wanted):
        return None
    return status_patch(pod, {**status, "conditions": merged(pod, wanted, now=now)})


def _status(pod: Object, run: ContainerRun, *, of: str) -> Object:
    image = next(one.get("image", "") for one in pod["spec"][of] if one["name"] == run.name)
    status: Object = {
        "name": run.name,
        "image": image,
        "imageID": "",
        "ready": run.succeeded if of == "initContainers" else run.ready,
        "started": run.started,
        "restartCount": run.restarts,
        "state": dict(run.state),
        "lastState": dict(run.last),
    }
    if run.last or "waiting" not in run.state:
        digest = hashlib.sha256(f"{uid_of(pod)}/{run.name}/{run.restarts}".encode()).hexdigest()
        status |= {"imageID": image, "containerID": f"process://{digest}"}
    return status
