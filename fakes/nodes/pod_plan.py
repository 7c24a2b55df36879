"""What a pod is going to do, and where it stands at a given age. Pure.

Annotations tell single pods what to do: `fake.nodes/start-after`, `fake.nodes/ready-after` (simulated seconds),
`fake.nodes/run-for` (until its containers exit), `fake.nodes/exit-code`, and `fake.nodes/waiting`, the reason a
container waits for ever, such as `ImagePullBackOff`.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from fakes.nodes.api import Object
from fakes.nodes.pod_faults import CRASH_LOOP, PodFault
from fakes.nodes.settings import NodeSettings

PREFIX = "fake.nodes/"

_OTHER_VENDORS = {"nvidia": ("amd", "rocm"), "amd": ("nvidia",)}


class Stage(StrEnum):
    """Stages in a pod's life on its node."""

    CREATING = "creating"
    WAITING = "waiting"
    CRASHED = "crashed"
    RUNNING = "running"
    READY = "ready"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class PodPlan:
    """What a pod does from the moment its node takes it up; spans in simulated seconds.

    `waiting` is why its containers never start, or are started again and again; `fault` is what else is known of that.
    """

    start_after: float
    ready_after: float
    run_for: float | None
    exit_code: int
    restarts: bool
    waiting: str | None = None
    message: str = ""
    fault: PodFault | None = None


def plan_for(pod: Object, settings: NodeSettings) -> PodPlan:
    """Read a pod's plan off its spec, its annotations and the settings. A value that is no number is ignored."""
    policy = pod["spec"].get("restartPolicy", "Always")
    notes = pod["metadata"].get("annotations") or {}
    containers = pod["spec"]["containers"]
    probed = any("readinessProbe" in container or "startupProbe" in container for container in containers)
    exit_code = int(_number(notes.get(PREFIX + "exit-code"), 0.0))
    ends = policy != "Always" or exit_code != 0 or PREFIX + "run-for" in notes
    return PodPlan(
        start_after=_number(notes.get(PREFIX + "start-after"), settings.pod_start_delay),
        ready_after=_number(notes.get(PREFIX + "ready-after"), settings.pod_ready_delay if probed else 0.0),
        run_for=_number(notes.get(PREFIX + "run-for"), settings.job_duration) if ends else None,
        exit_code=exit_code,
        # OnFailure restarts what failed and lets rest what succeeded.
        restarts=policy == "Always" or (policy == "OnFailure" and exit_code != 0),
        waiting=notes.get(PREFIX + "waiting"),
    )


def stage_at(plan: PodPlan, age: float) -> tuple[Stage, float | None]:
    """Return the stage at an age in simulated seconds, and the age of the next one; None when it stays."""
    if age < plan.start_after:
        return Stage.CREATING, plan.start_after
    if plan.waiting is not None:
        return (Stage.CRASHED if plan.waiting == CRASH_LOOP else Stage.WAITING), None
    end = None if plan.run_for is None else plan.start_after + plan.run_for
    if end is not None and age >= end:
        return _ended(plan), None
    ready = plan.start_after + plan.ready_after
    if age < ready:
        return Stage.RUNNING, ready if end is None else min(ready, end)
    return Stage.READY, end


def is_device_plugin(pod: Object, *, vendor: str | None = None) -> bool:
    """Whether a pod is a GPU device plugin, by its images and its name labels; with a vendor, one for its GPUs."""
    labels = pod["metadata"].get("labels") or {}
    words = [container.get("image", "") for container in pod["spec"]["containers"]]
    words += [labels.get(label, "") for label in ("app.kubernetes.io/name", "name")]
    text = " ".join(words).lower()
    return "device-plugin" in text and not any(word in text for word in _OTHER_VENDORS.get(vendor or "", ()))


def _ended(plan: PodPlan) -> Stage:
    if plan.restarts:
        return Stage.CRASHED
    return Stage.SUCCEEDED if plan.exit_code == 0 else Stage.FAILED


def _number(text: str | None, default: float) -> float:
    try:
        value = float(text) if text is not None else default
    except ValueError:
        return default
    return value if math.isfinite(value) and value >= 0 else default
