"""Pods whose containers are processes: started, probed, started again and ended as a kubelet does it."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fakes.containers.guard import MARK
from fakes.nodes.api import Object
from fakes.nodes.pod_faults import CRASH_LOOP
from fakes.nodes.pod_plan import Stage
from tests.fakes.containers_support import IMAGE, PATIENCE, POLL, Pods, container, exit_code, pod

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds what a container has started in /proc")
ROOT = Path(__file__).parents[2]
FOREVER = "while :; do sleep 0.05; done"


@pytest_asyncio.fixture
async def pods(tmp_path: Path) -> AsyncIterator[Pods]:
    pods = Pods(tmp_path)
    yield pods
    await pods.close()


def probe(kind: str = "exec", *, every: float = 0.03, **fields: Any) -> Object:
    action = {"command": ["test", "-e", "/work/ok"]} if kind == "exec" else {"port": "web", "path": "/ok"}
    return {kind: action, "periodSeconds": every, **fields}


def with_work(**fields: Any) -> Object:
    return {"volumeMounts": [{"name": "work", "mountPath": "/work"}], **fields}


WORK: list[Object] = [{"name": "work", "emptyDir": {}}]
# A shell has no idea of its mounts: it is told of them, as paths in variables are.
PLACE: Object = {"env": [{"name": "WORK", "value": "/work"}]}


class TestStart:
    async def test_init_containers_run_one_after_the_other_before_the_containers(self, pods: Pods) -> None:
        shared = {**with_work(), **PLACE}
        raw = pod(
            container('cat "$WORK/order"; ' + FOREVER, **shared),
            initContainers=[
                container('sleep 0.2; echo one >> "$WORK/order"', name="one", **shared),
                container('echo two >> "$WORK/order"', name="two", **shared),
            ],
            volumes=WORK,
        )
        started = pods.start(raw)

        run = await started.until(lambda run: run.stage is Stage.READY)

        assert await started.until_log("two") == "one\ntwo\n"
        assert all(one.succeeded for one in run.init_containers)
        assert Stage.CREATING in {before.stage for before in started.happened}

    async def test_init_container_that_fails_for_good_fails_the_pod(self, pods: Pods) -> None:
        first = container("exit 4", name="first")
        started = pods.start(pod(container(FOREVER), initContainers=[first], restartPolicy="Never"))

        run = await started.until_ended()

        assert run.stage is Stage.FAILED
        assert exit_code(run.init_containers[0]) == 4
        assert run.containers[0].state == {"waiting": {"reason": "PodInitializing"}}

    async def test_init_container_is_tried_again_where_the_pod_goes_on(self, pods: Pods) -> None:
        first = container(
            'test -e "$WORK/tried" || { touch "$WORK/tried"; exit 4; }', name="first", **with_work(), **PLACE
        )
        started = pods.start(pod(container(FOREVER), initContainers=[first], volumes=WORK))

        run = await started.until(lambda run: run.stage is Stage.READY)

        assert run.init_containers[0].restarts == 1

    async def test_container_sees_its_pod_and_the_image(self, tmp_path: Path) -> None:
        pods = Pods(
            tmp_path,
            environment={"FROM_IMAGE": "yes", "HOME": "/work"},
            instead=lambda root, address: {"ADDRESS": address},
        )
        pods.api.secret("keys", TOKEN="t")
        env = [
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "TOKEN"}}},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]
        raw = pod(container("env; echo end; pwd", **with_work(env=env)), restartPolicy="Never", volumes=WORK)
        started = pods.start(raw)

        await started.until_ended()

        said = started.log().splitlines()
        assert {"FROM_IMAGE=yes", "TOKEN=t", "NAME=pod-0", "HOSTNAME=pod-0", f"ADDRESS={pods.address}"} <= set(said)
        (home,) = [line for line in said if line.startswith("HOME=")]
        assert home.endswith("/containers/main/work")
        assert not any("PYTEST" in line for line in said), "nothing of this process is the container's"

    async def test_mount_does_not_hide_the_programs_of_the_machine(self, tmp_path: Path) -> None:
        program = tmp_path / "programs" / "hello"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho hello\n")
        program.chmod(0o755)
        pods = Pods(tmp_path, paths=(program.parent,))
        # As /tmp is, where the programs of the demo's image lie.
        mounts = [{"name": "work", "mountPath": str(tmp_path)}]
        raw = pod(
            {"name": "main", "image": IMAGE, "command": ["hello"], "volumeMounts": mounts},
            restartPolicy="Never",
            volumes=WORK,
        )
        started = pods.start(raw)

        await started.until_ended()

        assert started.log() == "hello\n"

    async def test_program_that_is_not_there_ends_as_with_a_runtime(self, pods: Pods) -> None:
        raw = pod({"name": "main", "image": IMAGE, "command": ["no-such-program"]}, restartPolicy="Never")

        run = await pods.start(raw).until_ended()

        assert run.containers[0].state["terminated"]["reason"] == "StartError"
        assert "no-such-program" in run.containers[0].state["terminated"]["message"]
        assert exit_code(run.containers[0]) == 128

    async def test_what_is_missing_is_told_and_waited_for(self, pods: Pods) -> None:
        env = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "x"}}}]
        started = pods.start(pod(container('echo "x is $X"; ' + FOREVER, env=env)))

        waiting = await started.until_main(lambda one: "message" in one.state.get("waiting", {}))
        assert waiting.state["waiting"] == {
            "reason": "CreateContainerConfigError",
            "message": 'configmap "late" not found',
        }

        pods.api.config_map("late", x="there")
        assert await started.until_log("x is") == "x is there\n"

    async def test_volume_that_is_missing_keeps_all_from_starting(self, pods: Pods) -> None:
        volume: Object = {"name": "work", "configMap": {"name": "late"}}
        started = pods.start(pod(container('cat "$WORK/x"', **with_work(), **PLACE), volumes=[volume]))

        run = await started.until(lambda run: "message" in run.containers[0].state.get("waiting", {}))
        assert run.stage is Stage.CREATING
        assert run.containers[0].state["waiting"]["message"] == 'configmap "late" not found'

        pods.api.config_map("late", x="there")
        await started.until_log("there")


class TestEnd:
    @pytest.mark.parametrize(
        ("policy", "script", "stage", "code"),
        [
            ("Never", "exit 0", Stage.SUCCEEDED, 0),
            ("Never", "exit 3", Stage.FAILED, 3),
            ("Never", "kill -9 $$", Stage.FAILED, 137),
            ("OnFailure", "exit 0", Stage.SUCCEEDED, 0),
        ],
    )
    async def test_pod_stands_as_its_container_has_ended(
        self, pods: Pods, policy: str, script: str, stage: Stage, code: int
    ) -> None:
        run = await pods.start(pod(container(script), restartPolicy=policy)).until_ended()

        assert run.stage is stage
        assert exit_code(run.containers[0]) == code
        assert run.containers[0].restarts == 0

    @pytest.mark.parametrize(("policy", "code"), [("Always", 0), ("Always", 5), ("OnFailure", 5)])
    async def test_container_is_started_again_with_back_off(self, pods: Pods, policy: str, code: int) -> None:
        started = pods.start(pod(container(f"exit {code}"), restartPolicy=policy))

        run = await started.until_main(lambda one: one.restarts >= 3)

        assert exit_code(run) == code or run.last["terminated"]["exitCode"] == code
        waits = [one.containers[0].state.get("waiting", {}) for one in started.happened]
        assert {"reason": CRASH_LOOP, "message": "back-off 0.05s restarting failed container=main pod=pod-0"} in waits
        assert Stage.SUCCEEDED not in {one.stage for one in started.happened}

    @pytest.mark.parametrize(
        ("script", "policy", "message"),
        [
            ('echo why > "$LOG"; exit 1', "File", "why\n"),
            ("echo said; exit 1", "File", None),
            ("echo said; exit 1", "FallbackToLogsOnError", "said\n"),
            ("echo said; exit 0", "FallbackToLogsOnError", None),
            ('echo said; echo why > "$LOG"; exit 1', "FallbackToLogsOnError", "why\n"),
            ('head -c 9999 /dev/zero | tr "\\0" x > "$LOG"', "File", "x" * 4096),
        ],
    )
    async def test_message_is_what_the_container_leaves(
        self, pods: Pods, script: str, policy: str, message: str | None
    ) -> None:
        fields = with_work(
            env=[{"name": "LOG", "value": "/work/why"}],
            terminationMessagePath="/work/why",
            terminationMessagePolicy=policy,
        )
        run = await pods.start(pod(container(script, **fields), volumes=WORK, restartPolicy="Never")).until_ended()

        assert run.containers[0].state["terminated"].get("message") == message

    async def test_what_a_container_has_started_ends_with_it(self, pods: Pods) -> None:
        started = pods.start(pod(container('setsid sleep 1000 & echo "pid=$!"'), restartPolicy="Never"))

        await started.until_ended()

        (pid,) = started.log().removeprefix("pid=").split()
        assert not is_running(int(pid))


class TestProbes:
    async def test_container_has_started_and_is_ready_by_its_probes(self, pods: Pods) -> None:
        script = (
            f'sleep 0.2; touch "$WORK/ok"; until test -e "$WORK/gone"; do sleep 0.02; done; rm "$WORK/ok"; {FOREVER}'
        )
        fields = with_work(**PLACE, startupProbe=probe(failureThreshold=1000), readinessProbe=probe(failureThreshold=2))
        started = pods.start(pod(container(script, **fields), volumes=WORK))

        ready = await started.until_main(lambda one: one.ready)
        assert ready.started
        assert any("running" in run.containers[0].state and not run.containers[0].started for run in started.happened)

        pods.file("work/gone").touch()
        unready = await started.until_main(lambda one: not one.ready)
        assert unready.started
        assert unready.restarts == 0

    async def test_probe_asks_at_the_pods_own_address(self, pods: Pods) -> None:
        script = f'mkdir -p "$WORK/ok" && cd "$WORK" && exec python3 -m http.server --bind {pods.address} 8080'
        ports = [{"name": "web", "containerPort": 8080}]
        fields = with_work(**PLACE, ports=ports, readinessProbe=probe("httpGet", every=0.1))
        started = pods.start(pod(container(script, **fields), volumes=WORK))

        assert (await started.until(lambda run: run.stage is Stage.READY)).containers[0].ready
        assert any(run.stage is Stage.RUNNING for run in started.happened)

    @pytest.mark.parametrize("kind", ["startupProbe", "livenessProbe"])
    async def test_container_that_is_dead_is_ended_and_started_again(self, pods: Pods, kind: str) -> None:
        fields = with_work(**{kind: probe(failureThreshold=2)})
        started = pods.start(pod(container(FOREVER, **fields), volumes=WORK, terminationGracePeriodSeconds=5))

        run = await started.until_main(lambda one: one.restarts >= 1)

        assert run.last["terminated"]["exitCode"] == 128 + signal.SIGTERM

    async def test_probe_that_does_not_answer_in_time_has_failed_and_leaves_nothing(self, pods: Pods) -> None:
        slow = {
            "exec": {"command": ["sh", "-c", "echo pid=$$; sleep 1000"]},
            "timeoutSeconds": 0.2,
            "periodSeconds": 0.03,
        }
        started = pods.start(pod(container(FOREVER, livenessProbe={**slow, "failureThreshold": 1})))

        await started.until_main(lambda one: one.restarts >= 1)

        pid = int(started.log().split()[0].removeprefix("pid="))
        await until_gone(pid)


class TestStop:
    GENTLE = "trap 'echo told; exit 0' TERM; echo up; " + FOREVER
    DEAF = "trap '' TERM; echo up; " + FOREVER

    async def test_container_is_told_and_may_end_by_itself(self, pods: Pods) -> None:
        started = pods.start(pod(container(self.GENTLE)))
        await started.until_log("up")

        started.pod.stop(grace=PATIENCE)
        run = await started.until_ended()

        assert started.log() == "up\ntold\n"
        assert (exit_code(run.containers[0]), run.stage) == (0, Stage.SUCCEEDED)

    async def test_container_that_does_not_end_is_killed_after_its_grace(self, pods: Pods) -> None:
        started = pods.start(pod(container(self.DEAF)))
        await started.until_log("up")

        started.pod.stop(grace=0.3)
        run = await started.until_ended()

        assert (exit_code(run.containers[0]), run.stage) == (128 + signal.SIGKILL, Stage.FAILED)

    async def test_shorter_grace_cuts_a_longer_one_short(self, pods: Pods) -> None:
        started = pods.start(pod(container(self.DEAF)))
        await started.until_log("up")

        started.pod.stop(grace=10_000)
        started.pod.stop(grace=0.1)

        assert exit_code((await started.until_ended()).containers[0]) == 128 + signal.SIGKILL

    async def test_hook_runs_before_the_container_is_told(self, pods: Pods) -> None:
        hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook"]}}}
        started = pods.start(pod(container(self.GENTLE, lifecycle=hook)))
        await started.until_log("up")

        started.pod.stop(grace=PATIENCE)
        await started.until_ended()

        assert started.log() == "up\nhook\ntold\n"

    async def test_container_in_back_off_is_not_started_again(self, pods: Pods) -> None:
        started = pods.start(pod(container("exit 1")))
        await started.until_main(lambda one: one.state.get("waiting", {}).get("reason") == CRASH_LOOP)

        started.pod.stop(grace=PATIENCE)
        run = (await started.until_ended()).containers[0]

        assert run.over
        assert run.last["terminated"]["exitCode"] == 1

    async def test_pod_that_waits_for_what_it_refers_to_ends_at_once(self, pods: Pods) -> None:
        volume: Object = {"name": "work", "secret": {"secretName": "never"}}
        started = pods.start(pod(container(FOREVER, **with_work()), volumes=[volume]))
        await started.until(lambda run: "message" in run.containers[0].state.get("waiting", {}))

        started.pod.stop(grace=PATIENCE)

        assert (await started.until_ended()).containers[0].last == {}

    async def test_kill_leaves_nothing(self, pods: Pods) -> None:
        started = pods.start(pod(container('echo "$$"; ' + self.DEAF)))
        pid = int((await started.until_log("up")).split()[0])

        await started.pod.kill()

        assert started.pod.ended
        assert not is_running(pid)


async def test_nothing_is_left_of_a_pod_whose_kubelet_is_killed(tmp_path: Path) -> None:
    kubelet = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.lonely_kubelet", str(tmp_path)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert kubelet.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            pids = [int(await kubelet.stdout.readline()) for _ in range(2)]
        assert all(map(is_running, pids))
    finally:
        kubelet.kill()
        await kubelet.wait()

    for pid in pids:
        await until_gone(pid)


def is_running(pid: int) -> bool:
    """Whether it is a process of a container; one that has ended and was not waited for has no environment."""
    try:
        return f"{MARK}=".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if not is_running(pid):
                return
            await asyncio.sleep(POLL)
