"""`serving check started|alive|ready`: the probes of pods in a group, where HTTP of one pod does not tell enough.

    leader   started, ready: /health is 200. alive: so it is, or the pod still loads or drains
    worker   started, ready: its program answers. alive: and, once the leader serves, its port of the group can be
             reached

A worker has nothing to be ready for but its leader, and a rollout that waited for it would wait for ever: the leader
that it needs is replaced after it. A leader that loads or drains is no reason to end a worker: requests in flight need
it.
"""

import http.client
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from provisioner.serving.environment import GROUP_PORT, PORT, ServeEnvironment
from provisioner.serving.state import Phase

WHAT: Final = ("started", "alive", "ready")
# Seconds; the probes themselves have five.
_TIMEOUT: Final = 2.0
_COMING: Final = frozenset({Phase.STARTING, Phase.GATHERING, Phase.LOADING, Phase.WARMING})


@dataclass(frozen=True, kw_only=True)
class Health:
    """What a gate says; `status` is 0 where nothing answers."""

    status: int = 0
    phase: str = ""
    progress: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a probe has found, and why in one line."""

    ok: bool
    line: str


def check(
    what: str,
    *,
    environment: ServeEnvironment,
    ask: Callable[[str, int], Health],
    reach: Callable[[str, int], bool],
    host: str = "127.0.0.1",
    port: int = PORT,
) -> Result:
    """Return whether the pod is what the probe asks for."""
    own = ask(host, port)
    if not own.status:
        return Result(ok=False, line="the program does not answer on its port")
    line = f"{own.phase}{': ' + own.progress if own.progress else ''}"
    if environment.rank == 0:
        is_alive = own.status == 200 or own.phase in _COMING | {Phase.DRAINING}
        return Result(ok=is_alive if what == "alive" else own.status == 200, line=line)
    if own.phase == Phase.FAILED or what != "alive" or own.phase in _COMING:
        return Result(ok=own.phase != Phase.FAILED, line=line)
    leader = ask(environment.leader, port)
    if leader.phase in _COMING | {Phase.DRAINING}:
        return Result(ok=True, line=f"{line}; the leader is {leader.phase}")
    if leader.status != 200:
        return Result(ok=False, line=f"the leader {environment.leader} is {leader.phase or 'silent'}")
    if not reach(environment.leader, GROUP_PORT):
        return Result(ok=False, line=f"the leader {environment.leader} cannot be reached on port {GROUP_PORT}")
    return Result(ok=True, line=f"{line}; the leader is {leader.phase}")


def ask(host: str, port: int) -> Health:
    """Return what the gate there says."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        said: Any = json.loads(answer.read(1 << 16))
        return Health(status=answer.status, phase=str(said.get("state", "")), progress=str(said.get("progress", "")))
    except (OSError, http.client.HTTPException, ValueError, AttributeError, RecursionError):
        return Health()
    finally:
        connection.close()


def reach(host: str, port: int) -> bool:
    """Tell whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT):
            return True
    except OSError:
        return False
