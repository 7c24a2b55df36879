"""The status a kubelet writes for a pod at each stage. Pure."""

import hashlib
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from fakes.nodes.api import Object, uid_of
from fakes.nodes.conditions import differ, merged, status_patch
from fakes.nodes.pod_faults import CRASH_LOOP, PodFault
from fakes.nodes.pod_plan import PodPlan, Stage

PHASES = {
    Stage.CREATING: "Pending",
    Stage.WAITING: "Pending",
    Stage.CRASHED: "Running",
    Stage.RUNNING: "Running",
    Stage.READY: "Running",
    Stage.SUCCEEDED: "Succeeded",
    Stage.FAILED: "Failed",
}
TERMINAL = frozenset({"Succeeded", "Failed"})

# 128 + SIGTERM: what a container asked to stop exits with when it has no handler of its own.
TERMINATED = 143


def report(
    pod: Object, stage: Stage, *, plan: PodPlan, host_ip: str, pod_ip: str, now: str, exit_code: int | None = None
) -> Object | None:
    """Return the patch that brings a pod's status to a stage; None when it says so already.

    `exit_code` is given when the kubelet itself ended the containers, not the plan.
    """
    code = plan.exit_code if exit_code is None else exit_code
    fault = plan.fault if stage in {Stage.CRASHED, Stage.WAITING} else None
    in_init = bool(fault and fault.init and pod["spec"].get("initContainers"))
    started = stage not in {Stage.CREATING, Stage.WAITING} and not in_init
    # Told to crash without being told how, a container fails; having run for its time, it ended as planned.
    main = _Containers(
        pod, field="containerStatuses", now=now, crash_code=code or int(plan.waiting is not None), fault=fault
    )
    troubled = _main_state(stage, plan, code)
    status: Object = {
        "phase": "Pending" if in_init else PHASES[stage],
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "startTime": pod["status"].get("startTime") or now,
        "containerStatuses": [
            main.status(container, _waiting("PodInitializing") if in_init else troubled, ready=stage is Stage.READY)
            for container in pod["spec"]["containers"]
        ],
    }
    if pod["spec"].get("initContainers"):
        init = _Containers(pod, field="initContainerStatuses", now=now, fault=fault if in_init else None)
        status["initContainerStatuses"] = [
            init.status(container, troubled if in_init else _init_state(container, stage), ready=started)
            for container in pod["spec"]["initContainers"]
        ]
    if started or pod["status"].get("podIP"):
        status |= {"podIP": pod_ip, "podIPs": [{"ip": pod_ip}]}
    wanted = conditions_at(pod, Stage.WAITING if in_init else stage)
    if not is_changed(pod["status"], status) and not differ(pod, wanted):
        return None
    return status_patch(pod, {**status, "conditions": merged(pod, wanted, now=now)})


def collected(pod: Object, *, now: str) -> Object:
    """Return what the pod garbage collector writes before it deletes a pod whose Node is gone."""
    disruption = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists",
    }
    return status_patch(pod, {"phase": "Failed", "conditions": merged(pod, [disruption], now=now)})


State = Callable[[Object, str], Object]
"""From the container's state so far and the time to its state now."""


def _waiting(reason: str, message: str = "") -> State:
    return lambda _before, _now: {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def _running(before: Object, now: str) -> Object:
    return {"running": {"startedAt": before.get("running", {}).get("startedAt") or now}}


def _terminated(code: int, fault: PodFault | None = None) -> State:
    def state(before: Object, now: str) -> Object:
        if "terminated" in before:
            return before
        reason = "Completed" if code == 0 else fault.reason if fault else "Error"
        started = before.get("running", {}).get("startedAt") or now
        said = {"message": fault.said} if fault and fault.said else {}
        return {"terminated": {"exitCode": code, "reason": reason, **said, "startedAt": started, "finishedAt": now}}

    return state


def _main_state(stage: Stage, plan: PodPlan, code: int) -> State:
    if stage is Stage.CREATING:
        return _waiting("ContainerCreating")
    if stage is Stage.WAITING:
        return _waiting(plan.waiting or "ContainerCreating", plan.message)
    if stage is Stage.CRASHED:
        return _waiting(CRASH_LOOP, plan.message or "back-off 10s restarting failed container")
    if stage in {Stage.SUCCEEDED, Stage.FAILED}:
        return _terminated(code)
    return _running


def _init_state(container: Object, stage: Stage) -> State:
    if stage in {Stage.CREATING, Stage.WAITING}:
        return _waiting("PodInitializing")
    # An init container that restarts always is a sidecar: it runs as long as the pod.
    if container.get("restartPolicy") == "Always" and stage not in {Stage.SUCCEEDED, Stage.FAILED}:
        return _running
    return _terminated(0)


@dataclass(frozen=True)
class _Containers:
    """Writes the statuses of a pod's containers of one sort."""

    pod: Object
    _: KW_ONLY
    field: str
    now: str
    crash_code: int = 1
    fault: PodFault | None = None

    def status(self, container: Object, state_of: State, *, ready: bool) -> Object:
        statuses = self.pod["status"].get(self.field) or ()
        before: Object = next((status for status in statuses if status["name"] == container["name"]), {})
        state_before = before.get("state") or {}
        state = state_of(state_before, self.now)
        status = {
            "name": container["name"],
            "image": container.get("image", ""),
            "imageID": "",
            "ready": ready,
            "started": "running" in state,
            "restartCount": before.get("restartCount", 0),
            "state": state,
            "lastState": before.get("lastState") or {},
        }
        crashed = state.get("waiting", {}).get("reason") == CRASH_LOOP
        restarts = self.fault.restarts if self.fault else 1
        if crashed and status["restartCount"] < restarts:
            end = _terminated(self.crash_code, self.fault)
            status |= {"restartCount": restarts, "lastState": end(state_before, self.now)}
        if crashed or "waiting" not in state:
            digest = hashlib.sha256(f"{uid_of(self.pod)}/{container['name']}".encode()).hexdigest()
            status |= {"imageID": container.get("image", ""), "containerID": f"containerd://{digest}"}
        return status


def conditions_at(pod: Object, stage: Stage) -> list[Object]:
    """Return what the conditions of a pod say at a stage, without times."""
    names = " ".join(container["name"] for container in pod["spec"]["containers"])
    unready: Object = {"reason": "ContainersNotReady", "message": f"containers with unready status: [{names}]"}
    ready: Object = {"status": "False", **unready}
    initialized: Object = {"status": "True"}
    sandbox = stage in {Stage.CRASHED, Stage.RUNNING, Stage.READY}
    if stage is Stage.READY:
        ready = {"status": "True"}
    elif stage is Stage.SUCCEEDED:
        ready = {"status": "False", "reason": "PodCompleted"}
        initialized = {"status": "True", "reason": "PodCompleted"}
    elif stage is Stage.FAILED:
        ready = {"status": "False", "reason": "PodFailed"}
    elif stage in {Stage.CREATING, Stage.WAITING} and pod["spec"].get("initContainers"):
        initialized = {"status": "False", "reason": "ContainersNotInitialized"}
    return [
        {"type": "PodReadyToStartContainers", "status": str(sandbox)},
        {"type": "Initialized", **initialized},
        {"type": "ContainersReady", **ready},
        {"type": "Ready", **ready},
    ]


def is_changed(current: Object, wanted: Object) -> bool:
    """Whether a pod's status says anything else than the wanted one, conditions and times aside."""
    if any(current.get(field) != wanted.get(field, current.get(field)) for field in ("phase", "hostIP", "podIP")):
        return True
    return any(
        _essence(current.get(field) or []) != _essence(wanted.get(field) or [])
        for field in ("containerStatuses", "initContainerStatuses")
    )


def _essence(statuses: list[Object]) -> list[Object]:
    # The server adds fields of its own to a container's status.
    fields = ("name", "ready", "started", "restartCount", "state")
    return [{field: status.get(field) for field in fields} for status in statuses]
