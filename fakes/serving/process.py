"""The serving image's program as a child process: unmodified, with a directory in place of the pod's mounts."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from provisioner.serving import environment as names

_ROOT: Final = Path(__file__).resolve().parents[2]
_POLL: Final = 0.1
_MOUNTS: Final = (
    *(names.MODELS, names.CACHE, names.ADAPTERS, names.DATA, names.RESULTS, names.CONFIG, names.REGISTRY_SECRETS),
    *("/tmp", "/dev"),  # noqa: S108 -- under the root that is given
)
# What vLLM needs on CPU beside what image and controller say: a share of the memory is not what a small machine has.
CPU_OPTIONS: Final = "vllm:\n  enforce-eager: true\n  kv-cache-memory-bytes: 16M\n  max-num-seqs: 4\n"


class ServingProcess:
    """One run of the program; use as `async with`. Its mounts are under `root`, its log beside them.

    `python` is the serving environment's. `arguments` are those of the image, `serve` where none are given.
    `environment` is the pod's; `port` is where it listens on loopback, and vLLM on the one after it. Two that work for
    each other listen on one port of two addresses (BIND_ADDRESS), as pods do.
    """

    def __init__(
        self,
        *arguments: str,
        python: Path,
        root: Path,
        environment: Mapping[str, str],
        port: int = 0,
    ) -> None:
        self._arguments: Sequence[str] = arguments or (names.SERVE,)
        self._python = python
        self.root = root
        self.port = port
        self._environment = {
            "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(_ROOT),
            "PYTHONUNBUFFERED": "1",
            "HOME": str(root / "cache"),
            "XDG_CACHE_HOME": str(root / "cache"),
            "HF_HOME": str(root / "models"),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "SERVING_ROOT": str(root),
            "BIND_ADDRESS": "127.0.0.1",
            "SERVING_PORT": str(port),
            **environment,
        }
        self._log = root / "log"
        self._process: asyncio.subprocess.Process | None = None
        make_mounts(root)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    @property
    def process(self) -> asyncio.subprocess.Process:
        """Return the process. Raises RuntimeError where it was never started."""
        if self._process is None:
            raise RuntimeError("the program has not been started")
        return self._process

    @property
    def runs(self) -> bool:
        """Tell whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def url(self) -> str:
        """Return where it serves."""
        return f"http://{self._environment['BIND_ADDRESS']}:{self.port}"

    async def check(self, what: str) -> tuple[int, str]:
        """Ask a probe of the program, and return its exit code and what it says."""
        process = await asyncio.create_subprocess_exec(
            *(str(self._python), "-m", "provisioner.serving", names.CHECK, what),
            cwd=_ROOT,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode()

    def descendants(self) -> list[int]:
        """Return the process and all that it has started and that is below it still."""
        return descendants(self.process.pid)

    async def start(self) -> None:
        """Start it, in a process group of its own."""
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(str(self._python), "-m", "provisioner.serving", *self._arguments),
                cwd=_ROOT,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def health(self) -> tuple[int, dict[str, Any]]:
        """Return the status of /health and what it says; (0, {}) where nothing listens."""
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/health") as answer:
                return answer.status, await answer.json()
        except aiohttp.ClientError:
            return 0, {}

    async def wait_serving(self, *, patience: float = 180.0) -> None:
        """Return once the model is served. Raises TimeoutError, RuntimeError where the program has ended."""
        async with asyncio.timeout(patience):
            while (await self.health())[0] != 200:
                if self.process.returncode is not None:
                    raise RuntimeError(f"ended with code {self.process.returncode}: {self.log_text()[-2000:]}")
                await asyncio.sleep(_POLL)

    def terminate(self) -> None:
        """Ask it to end, as the kubelet does: the program itself and nothing that it has started."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)

    async def wait(self, *, patience: float = 180.0) -> int:
        """Return its exit code once it has ended. Raises TimeoutError."""
        async with asyncio.timeout(patience):
            return await self.process.wait()

    async def kill(self) -> None:
        """Kill it and all that it has started, as when a container is taken away."""
        if self._process is None or self._process.returncode is not None:
            return
        for pid in descendants(self._process.pid):
            _kill(pid)
        await self._process.wait()

    def log_text(self) -> str:
        """Return what it has logged so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def termination_message(self) -> str:
        """Return what Kubernetes would show of its end."""
        path = self.root / "dev" / "termination-log"
        return path.read_text() if path.exists() else ""


def make_mounts(root: Path) -> None:
    """Make the directories that the pod mounts; those that are there stay as they are."""
    for mount in _MOUNTS:
        (root / mount.lstrip("/")).mkdir(parents=True, exist_ok=True)


def is_alive(pid: int) -> bool:
    """Tell whether the process runs; one that has ended and was not asked for its exit code does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def still_alive(pids: Iterable[int], *, patience: float = 10.0) -> list[int]:
    """Return those that run even after so many seconds: what is killed takes a moment to be gone, a big one longer."""
    left = list(pids)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while True:
                left = [pid for pid in left if is_alive(pid)]
                if not left:
                    break
                await asyncio.sleep(_POLL)
    return left


def descendants(pid: int) -> list[int]:
    """Return a process and what it has started, the youngest last: vLLM's processes have groups of their own."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for known in found:
        found += children.get(known, [])
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
