"""How a pod that really runs stands, and what is written of it."""

from typing import Any

import pytest

from fakes.nodes.api import Object
from fakes.nodes.pod_plan import Stage
from fakes.nodes.run_status import report_run
from fakes.nodes.running import ContainerRun, PodRun

NOW = "2026-01-01T00:00:00Z"
WAITING: Object = {"waiting": {"reason": "PodInitializing"}}
RUNNING: Object = {"running": {"startedAt": NOW}}


def ended(code: int) -> Object:
    return {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}}


def run(state: Object, **fields: Any) -> ContainerRun:
    return ContainerRun(name="main", state=state, **fields)


@pytest.mark.parametrize(
    ("containers", "init", "stage"),
    [
        ([run(WAITING)], [], Stage.CREATING),
        ([run(WAITING)], [run(RUNNING)], Stage.CREATING),
        ([run(WAITING)], [run(ended(1))], Stage.CREATING),
        ([run(WAITING)], [run(ended(1), over=True)], Stage.FAILED),
        ([run(WAITING)], [run(ended(0), over=True)], Stage.CREATING),
        ([run(RUNNING)], [run(ended(0), over=True)], Stage.RUNNING),
        ([run(RUNNING, ready=True)], [], Stage.READY),
        ([run(RUNNING, ready=True), run(RUNNING)], [], Stage.RUNNING),
        ([run(RUNNING), run(WAITING)], [], Stage.RUNNING),
        ([run(WAITING, last=ended(1))], [], Stage.RUNNING),
        ([run(ended(1))], [], Stage.RUNNING),
        ([run(ended(0), over=True)], [], Stage.SUCCEEDED),
        ([run(ended(0), over=True), run(ended(1), over=True)], [], Stage.FAILED),
        ([run(ended(0), over=True), run(RUNNING, ready=True)], [], Stage.RUNNING),
        ([run(WAITING, over=True)], [], Stage.FAILED),
    ],
)
def test_pod_stands_as_its_containers_do(
    containers: list[ContainerRun], init: list[ContainerRun], stage: Stage
) -> None:
    assert PodRun(containers=tuple(containers), init_containers=tuple(init)).stage is stage


POD: Object = {
    "metadata": {"name": "serve-0", "uid": "u", "resourceVersion": "7"},
    "spec": {
        "initContainers": [{"name": "first", "image": "puller:1"}],
        "containers": [{"name": "main", "image": "serving:1"}],
    },
    "status": {"conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": NOW}]},
}
FIRST = ContainerRun(name="first", state=ended(0), over=True)


def report(raw: Object, stands: ContainerRun) -> Object | None:
    pod = PodRun(containers=(stands,), init_containers=(FIRST,))
    return report_run(raw, pod, host_ip="10.0.0.1", pod_ip="127.96.0.4", now=NOW)


def test_status_is_that_of_its_containers() -> None:
    patch = report(POD, run(RUNNING, ready=True, started=True, restarts=1, last=ended(3)))

    assert patch is not None
    assert patch["metadata"] == {"resourceVersion": "7"}
    status = patch["status"]
    assert (status["phase"], status["podIP"], status["startTime"]) == ("Running", "127.96.0.4", NOW)
    (main,), (first,) = status["containerStatuses"], status["initContainerStatuses"]
    assert main["lastState"] == ended(3)
    assert (main["image"], main["restartCount"], main["ready"], main["started"]) == ("serving:1", 1, True, True)
    assert (first["image"], first["ready"], first["state"]) == ("puller:1", True, ended(0))
    conditions = {one["type"]: one["status"] for one in status["conditions"]}
    assert conditions["Ready"] == conditions["ContainersReady"] == conditions["PodScheduled"] == "True"


def test_nothing_is_written_of_what_is_written_already() -> None:
    stands = run(RUNNING, ready=True, started=True)
    patch = report(POD, stands)
    assert patch is not None

    written = {**POD, "status": {**POD["status"], **patch["status"]}}

    assert report(written, stands) is None
    assert report(written, run(RUNNING, started=True)) is not None


def test_container_that_was_never_started_has_no_number() -> None:
    patch = report(POD, run(WAITING))

    assert patch is not None
    assert "containerID" not in patch["status"]["containerStatuses"][0]
    assert patch["status"]["phase"] == "Pending"
