"""One container of a pod: started, probed, started again, and stopped, as the kubelet does it."""

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from fakes.containers import spec, volumes
from fakes.containers.image import Image
from fakes.containers.probes import Probe, ask
from fakes.containers.process import Process
from fakes.containers.spec import ConfigError, References
from fakes.containers.timing import Timing
from fakes.nodes.api import TRANSIENT, Object, uid_of
from fakes.nodes.clock import timestamp
from fakes.nodes.pod_faults import CRASH_LOOP
from fakes.nodes.running import ContainerRun

# What the kubelet shows of a log in place of a termination message.
_MOST_BYTES: Final = 2048
_MOST_LINES: Final = 80
_LONGEST_MESSAGE: Final = 4096
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
# What a shell says of a program that cannot be run, and the runtime too.
_NOT_STARTED: Final = 128


class Container:
    """Lives by `live`, once. `policy` is its restartPolicy; `run` is how it stands, told of by `on_change`."""

    def __init__(
        self,
        container: Object,
        *,
        pod: Object,
        image: Image,
        policy: str,
        folder: Path,
        log: Path,
        address: str,
        references: References,
        timing: Timing,
        on_change: Callable[[], None],
    ) -> None:
        self._spec = container
        self._pod = pod
        self._image = image
        self._policy = policy
        self._root: Path = folder / "containers" / container["name"]
        self._volumes = folder / "volumes"
        self._log = log
        self._address = address
        self._references = references
        self._timing = timing
        self._on_change = on_change
        self._grace = float(pod["spec"].get("terminationGracePeriodSeconds", 30))
        self._process: Process | None = None
        self._environment: Mapping[str, str] = {}
        self._mounts: Sequence[str] = ()
        self._stopping = asyncio.Event()
        self.run = ContainerRun(name=container["name"], state={"waiting": {"reason": "PodInitializing"}})

    async def live(self) -> None:
        """Run it until it is over: by itself and by its policy, or stopped."""
        delay = 0.0
        while not self._stopping.is_set():
            began = time.monotonic()
            await self._once()
            code = self.run.state.get("terminated", {}).get("exitCode", 0)
            if self._policy == "Never" or (self._policy == "OnFailure" and code == 0) or self._stopping.is_set():
                break
            if time.monotonic() - began > self._timing.good_run:
                delay = 0.0
            if delay:
                name, whose = self.run.name, self._pod["metadata"]
                said = f"back-off {delay:g}s restarting failed container={name} pod={whose['name']}"
                state: Object = {"waiting": {"reason": CRASH_LOOP, "message": said}}
                self._become(replace(self.run, state=state, last=self.run.state))
                await self._sleep(delay)
            # What it refers to may be another by now.
            self._references.forget()
            delay = min(delay * 2, self._timing.longest) if delay else self._timing.back_off
        self._become(replace(self.run, over=True))

    async def stop(self, *, grace: float) -> None:
        """End it within so many seconds, its hook first, and return once nothing of it runs."""
        self._stopping.set()
        if self._process is not None:
            await self._shut(self._process, grace=grace)

    async def kill(self) -> None:
        """End it at once."""
        self._stopping.set()
        if self._process is not None:
            await self._process.kill()

    async def _once(self) -> None:
        """Start it and return when it has ended; nothing is started when it is being stopped."""
        if not await self._prepare():
            return
        argv = [self._placed(part) for part in spec.command(self._spec, self._image, self._environment)]
        directory = self._placed(self._spec.get("workingDir") or "")
        started = timestamp()
        restarts = self.run.restarts + (1 if self.run.last or "terminated" in self.run.state else 0)
        last = self.run.state if "terminated" in self.run.state else self.run.last
        try:
            self._process = await Process.start(
                argv,
                environment=self._environment,
                directory=Path(directory or self._root),
                log=self._log,
                mark=self._mark(),
            )
        except OSError as error:
            ended = _terminated(_NOT_STARTED, reason="StartError", started=started, message=str(error))
            self._become(replace(self.run, state=ended, last=last, restarts=restarts))
            return
        if self._stopping.is_set():
            # It was not there yet for whoever has stopped this.
            await self._process.kill()
        state: Object = {"running": {"startedAt": started}}
        self._become(replace(self.run, state=state, last=last, restarts=restarts))
        probing = asyncio.create_task(self._probe())
        try:
            code = await self._process.wait()
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
            self._process = None
        ended = _terminated(
            code, reason="Completed" if code == 0 else "Error", started=started, message=self._message(code)
        )
        self._become(replace(self.run, state=ended, ready=False, started=False))

    async def _prepare(self) -> bool:
        """Resolve what it refers to; tell what is missing, and look again, until it is there or this is stopped."""
        if "waiting" in self.run.state and not self.run.last:
            self._become(replace(self.run, state={"waiting": {"reason": "ContainerCreating"}}))
        while not self._stopping.is_set():
            try:
                own = await spec.environment(self._spec, pod=self._pod, references=self._references)
                self._mounts = volumes.mount(self._spec, self._root, volumes=self._volumes)
                values = {"HOSTNAME": self._pod["metadata"]["name"], **self._image.environment, **own}
                self._environment = {
                    # Paths of this machine, which a mount of the same name has nothing to do with.
                    "PATH": ":".join([*map(str, self._image.paths), _PATH]),
                    **{name: self._placed(value) for name, value in values.items()},
                    **self._image.instead(self._root, self._address),
                }
                await self._image.fill(self._root, self._environment)
                self._message_path.parent.mkdir(parents=True, exist_ok=True)
            except ConfigError as error:
                wrong: Object = {"waiting": {"reason": "CreateContainerConfigError", "message": str(error)}}
                self._become(replace(self.run, state=wrong))
            except TRANSIENT:
                pass
            else:
                return not self._stopping.is_set()
            self._references.forget()
            await self._sleep(self._timing.retry)
        return False

    async def _probe(self) -> None:
        """Follow its probes; one that finds it dead has it stopped, and started again by its policy."""
        probes = {kind: Probe.read(self._spec[kind]) for kind in _PROBES if kind in self._spec}
        if startup := probes.get("startupProbe"):
            verdicts: list[bool] = []

            def tell(found: bool) -> bool:
                verdicts.append(found)
                return True

            await self._follow(startup, tell)
            if not verdicts[-1]:
                await self._end()
                return
        self._become(replace(self.run, started=True, ready="readinessProbe" not in probes))
        async with asyncio.TaskGroup() as tasks:
            if ready := probes.get("readinessProbe"):
                tasks.create_task(self._follow(ready, self._tell_ready))
            if alive := probes.get("livenessProbe"):
                tasks.create_task(self._follow_alive(alive))

    async def _follow(self, probe: Probe, tell: Callable[[bool], bool]) -> None:
        await probe.follow(lambda: self._ask(probe.action, timeout=probe.timeout), tell=tell)

    def _tell_ready(self, found: bool) -> bool:
        self._become(replace(self.run, ready=found))
        return False

    async def _follow_alive(self, probe: Probe) -> None:
        await self._follow(probe, lambda found: not found)
        await self._end()

    async def _end(self) -> None:
        """End what is dead by its probe; one that is being stopped has its grace period, however it feels."""
        if self._process is not None and not self._stopping.is_set():
            await self._shut(self._process, grace=self._grace)

    async def _shut(self, process: Process, *, grace: float) -> None:
        began = time.monotonic()
        hook = (self._spec.get("lifecycle") or {}).get("preStop")
        if hook and "sleep" in hook:
            await asyncio.sleep(min(float(hook["sleep"]["seconds"]), grace))
        elif hook and grace > 0:
            await self._ask(hook, timeout=grace)
        left = max(grace - (time.monotonic() - began), min(self._timing.least, grace))
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(left) else left):
                await process.wait()
                return
        await process.kill()

    async def _ask(self, action: Object, *, timeout: float) -> bool:
        return await ask(
            action,
            address=self._address,
            ports=self._spec.get("ports") or (),
            execute=self._execute,
            timeout=None if math.isinf(timeout) else timeout,
        )

    async def _execute(self, argv: Sequence[str]) -> int:
        placed = [self._placed(part) for part in argv]
        process = await Process.start(
            placed, environment=self._environment, directory=self._root, log=self._log, mark=self._mark()
        )
        try:
            return await process.wait()
        finally:
            await asyncio.shield(process.kill())

    def _mark(self) -> str:
        """Return a run's own, below the pod's."""
        return f"{uid_of(self._pod)}-{secrets.token_hex(4)}"

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), timeout=seconds)

    def _placed(self, text: str) -> str:
        return spec.at_root(text, root=self._root, mounts=self._mounts)

    @property
    def _message_path(self) -> Path:
        path: str = self._spec.get("terminationMessagePath", "/dev/termination-log")
        return self._root / path.lstrip("/")

    def _message(self, code: int) -> str:
        """Return what the container says of its end, in the way its terminationMessagePolicy has it."""
        with contextlib.suppress(OSError):
            if said := self._message_path.read_bytes()[:_LONGEST_MESSAGE]:
                return said.decode(errors="replace")
        if code == 0 or self._spec.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return ""
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(log.tell() - _MOST_BYTES, 0))
            return "".join(log.read().decode(errors="replace").splitlines(keepends=True)[-_MOST_LINES:])
        return ""

    def _become(self, run: ContainerRun) -> None:
        if run != self.run:
            self.run = run
            self._on_change()


_PROBES: Final = ("startupProbe", "readinessProbe", "livenessProbe")


def _terminated(code: int, *, reason: str, started: str, message: str) -> Object:
    said = {"message": message} if message else {}
    return {"terminated": {"exitCode": code, "reason": reason, **said, "startedAt": started, "finishedAt": timestamp()}}
