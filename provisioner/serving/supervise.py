"""The parent of vLLM: from the look at what there is to serve until the last request is answered.

The gate listens from the first second, so that probes, clients and the other pods of a group learn what is going on.
On SIGTERM nothing new is let in and vLLM is told only when what is in flight has been answered: told while it is busy,
it hangs more often than not, and nothing but SIGKILL helps.
"""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from provisioner.gpus.memory import GIB
from provisioner.serving import arguments, group, options, preflight
from provisioner.serving.arguments import LoraModule
from provisioner.serving.child import Child
from provisioner.serving.environment import DRAIN, MARGIN, PORT, ServeEnvironment
from provisioner.serving.gate import Gate
from provisioner.serving.group import Group
from provisioner.serving.options import Options
from provisioner.serving.places import Places
from provisioner.serving.preflight import Findings
from provisioner.serving.problem import Problem, one_line
from provisioner.serving.state import Phase, State
from provisioner.serving.vllm_errors import LastWords
from provisioner.serving.warm_up import Failed, warm_up

_log: Final = logging.getLogger(__name__)
# Where a key for clients may be. vLLM is not shown them: the gate asks for the key, and vLLM would do so again.
_KEYS: Final = ("API_KEY", "VLLM_API_KEY")
# The hosts of a group's workers by rank, where there is no StatefulSet that gives them names.
_WORKERS: Final = "WORKER_ADDRESSES"
# Seconds that vLLM gives its engines to start, unless told otherwise: the pod's probe is the judge of that.
_ENGINE_READY: Final = "10800"


class _VllmEnded(Problem):
    """vLLM has ended, or is of no use; `reason` is what it said."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"vLLM: {reason}")
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds. `end` is what vLLM has to end itself once nothing is in flight, `end_loading` while it loads."""

    drain: float = DRAIN
    end: float = MARGIN - 5
    end_loading: float = 5
    poll: float = 1
    progress: float = 15
    group_period: float = group.PERIOD
    group_lost: float = group.LOST


class Server:
    """One run of vLLM behind a gate. `command` is what vLLM is started by."""

    def __init__(
        self,
        environment: ServeEnvironment,
        *,
        places: Places,
        variables: Mapping[str, str],
        command: Sequence[str] = ("vllm",),
        host: str | None = None,
        port: int = PORT,
        timing: Timing | None = None,
        peers: Mapping[int, str] | None = None,
    ) -> None:
        self._environment = environment
        self._places = places
        self._variables = variables
        self._command = tuple(command)
        self._host = host
        self._port = port
        self._timing = timing or Timing()
        self._peers = peers
        self._upstream = f"http://{arguments.UPSTREAM_HOST}:{port + 1}"
        self._words = LastWords()
        self._child: Child | None = None
        self._group: Group | None = None
        self._ending = asyncio.Event()
        self.state = State(file=places.status, rank=environment.rank)

    def end(self) -> None:
        """Answer what is in flight, then end."""
        self._ending.set()

    async def run(self) -> None:
        """Serve until told to end. Raises Problem when it cannot."""
        chosen = options.read(self._places.inference_config)
        # Secrets often end in a line feed, which no header can have.
        keys = tuple(self._variables[name].strip() for name in _KEYS if self._variables.get(name))
        if not all(keys):
            raise Problem(f"the key in {' or '.join(_KEYS)} is blank: put one into its Secret, or remove the variable")
        name = arguments.served_name(self._environment, chosen)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.end)
        gate = Gate(state=self.state, upstream=self._upstream, model=name, keys=keys)
        try:
            async with gate:
                try:
                    await gate.start(host=self._host, port=self._port)
                except OSError as error:
                    raise Problem(f"port {self._port} cannot be listened on: {error}") from error
                await self._run(gate, chosen, name)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def _run(self, gate: Gate, chosen: Options, name: str) -> None:
        work = asyncio.create_task(self._work(gate, chosen, name))
        ending = asyncio.create_task(self._ending.wait())
        patience = self._timing.end
        try:
            await asyncio.wait({work, ending}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
            elif self.state.phase is Phase.SERVING:
                await self._drain(gate)
            else:
                _log.info("ending while %s", self.state.phase)
                patience = self._timing.end_loading
                self.state.enter(Phase.DRAINING)
        except Problem as problem:
            self.state.enter(Phase.FAILED, str(problem))
            raise
        finally:
            for task in (work, ending):
                task.cancel()
            await asyncio.gather(work, ending, return_exceptions=True)
            if self._child is not None:
                # Whoever still waits for an answer keeps vLLM from its end.
                await gate.stop()
                await self._child.stop(patience=patience)

    async def _drain(self, gate: Gate) -> None:
        self.state.enter(Phase.DRAINING)
        _log.info("draining: %d requests in flight", gate.in_flight)
        if self._environment.rank and self._group is not None:
            await self._group.until_leader_has_ended(seconds=self._timing.drain)
        elif not await gate.drain(seconds=self._timing.drain):
            _log.warning("%d requests are cut short after %.0f s", gate.in_flight, self._timing.drain)

    async def _work(self, gate: Gate, chosen: Options, name: str) -> None:
        """Return never. Raises Problem."""
        findings = await asyncio.to_thread(
            preflight.examine,
            self._environment,
            options=chosen,
            places=self._places,
            variables=self._variables,
        )
        self._report(chosen, findings)
        modules = findings.modules
        argv = arguments.build(self._environment, options=chosen, adapters=modules, port=self._port + 1)
        if self._environment.nodes > 1:
            peers = self._peers or group.urls(
                self._environment.leader,
                nodes=self._environment.nodes,
                rank=self._environment.rank,
                port=self._port,
                workers=tuple(host for host in self._variables.get(_WORKERS, "").split(",") if host),
            )
            self._group = Group(
                state=self.state, urls=peers, period=self._timing.group_period, lost=self._timing.group_lost
            )
            await self._group.gather()
        while True:
            try:
                await self._run_child(gate, argv, name, has_template="chat-template" in chosen.values)
            except _VllmEnded as ended:
                refused = self._refused(modules)
                if refused is None:
                    raise
                why = one_line(f"vLLM refuses it: {ended.reason}")
                if self._environment.nodes > 1:
                    # The others have been started with it as well.
                    raise Problem(f"adapter {refused.name} cannot be served, remove it: {why}") from ended
                _log.error("adapter %s is left out: %s", refused.name, why)
                self.state.left_out[refused.name] = why
                modules = tuple(module for module in modules if module is not refused)
                argv = arguments.build(self._environment, options=chosen, adapters=modules, port=self._port + 1)
                if self._child is not None:
                    await self._child.stop(patience=0)

    async def _run_child(self, gate: Gate, argv: Sequence[str], name: str, *, has_template: bool) -> None:
        """Return never. Raises Problem."""
        self._words = LastWords()
        self.state.enter(Phase.LOADING)
        _log.info("starting: %s", " ".join((*self._command, *argv)))
        try:
            self._child = await Child.start(
                (*self._command, *argv), environment=self._child_environment(), on_line=self._words.read
            )
        except OSError as error:
            raise Problem(f"vLLM cannot be started: {error}") from error
        parts: list[Coroutine[Any, Any, None]] = [self._watch_child(self._child), self._tell_progress()]
        if self._environment.rank:
            # It has no port to ask; that its leader serves is all there is to know.
            self.state.enter(Phase.SERVING)
        else:
            parts.append(self._become_ready(gate, self._child, name, has_template=has_template))
        if self._group is not None:
            parts.append(self._group.watch())
        await _until_one_fails(parts)

    def _refused(self, modules: Sequence[LoraModule]) -> LoraModule | None:
        """Return the adapter that vLLM has ended because of, the first that it has not taken."""
        if not self._words.adapter_refused:
            return None
        return next((module for module in modules if module.name not in self._words.adapters), None)

    def _report(self, chosen: Options, findings: Findings) -> None:
        for note in (*chosen.notes, *findings.notes):
            _log.warning("%s", note)
        for name, why in findings.left_out.items():
            _log.error("adapter %s is left out: %s", name, why)
        self.state.left_out = dict(findings.left_out)
        self.state.expected_bytes = findings.download_bytes
        self.state.write()

    def _child_environment(self) -> dict[str, str]:
        environment = {name: value for name, value in self._variables.items() if name not in _KEYS}
        environment.setdefault("VLLM_ENGINE_READY_TIMEOUT_S", _ENGINE_READY)
        environment.setdefault("VLLM_NO_USAGE_STATS", "1")
        environment["PYTHONUNBUFFERED"] = "1"
        if self._environment.nodes > 1 and self._variables.get("POD_IP"):
            environment.setdefault("VLLM_HOST_IP", self._variables["POD_IP"])
        return environment

    async def _watch_child(self, child: Child) -> None:
        code = await child.wait()
        said = f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
        if code == -signal.SIGKILL:
            said += ": the pod may have run out of memory"
        raise _VllmEnded(self._words.text(otherwise=said))

    async def _become_ready(self, gate: Gate, child: Child, name: str, *, has_template: bool) -> None:
        while not await gate.upstream_is_healthy():  # noqa: ASYNC110 -- vLLM tells nobody when it is up
            await asyncio.sleep(self._timing.poll)
        self.state.enter(Phase.WARMING)
        try:
            await warm_up(self._upstream, model=name, has_template=has_template)
        except Failed as error:
            # Why is in its output, which is read later than the answer, and it mostly ends of it. All is read when it
            # has ended, by force where it does not: what it says of a SIGTERM is no reason.
            self._words.suggest(str(error))
            try:
                await asyncio.wait_for(child.wait(), timeout=self._timing.end)
            except TimeoutError:
                await child.kill()
            raise _VllmEnded(self._words.text(otherwise=str(error))) from error
        self._words.serving()
        self.state.enter(Phase.SERVING)
        _log.info("serving %s", name)

    async def _tell_progress(self) -> None:
        began = time.monotonic()
        while True:
            held = await asyncio.to_thread(preflight.bytes_under, self._places.models)
            if self.state.phase is Phase.SERVING:
                return
            self.state.downloaded_bytes = held
            expected = f" of {self.state.expected_bytes / GIB:.1f}" if self.state.expected_bytes else ""
            self.state.progress = f"{held / GIB:.1f}{expected} GiB of weights there, {time.monotonic() - began:.0f} s"
            self.state.write()
            _log.info("%s: %s", self.state.phase, self.state.progress)
            await asyncio.sleep(self._timing.progress)


async def _until_one_fails(parts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all until one raises, and raise that."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            await task
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
