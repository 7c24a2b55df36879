"""What can go wrong with the containers of a pod, on request."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

CRASH_LOOP = "CrashLoopBackOff"


@dataclass(frozen=True, kw_only=True)
class PodFault:
    """What happens to the pods whose `namespace/name` matches a glob, as long as it is not cleared.

    `waiting` is why containers do not run: for CrashLoopBackOff they have ended with `exit_code` and `reason`, been
    started again `restarts` times and left `said` as their termination message; for any other reason, such as
    ImagePullBackOff, they were never started. `message` is the kubelet's word on it. With `init` it is init containers
    that it happens to.
    """

    pod: str = "*"
    waiting: str = CRASH_LOOP
    message: str = ""
    exit_code: int = 1
    reason: str = "Error"
    said: str = ""
    restarts: int = 1
    init: bool = False


class PodFaults:
    """The faults in force; tells `on_change` after each change."""

    def __init__(self, *, on_change: Callable[[], None]) -> None:
        self._faults: list[PodFault] = []
        self._on_change = on_change

    def add(self, fault: PodFault) -> None:
        """Put a fault in force, before all older ones."""
        self._faults.insert(0, fault)
        self._on_change()

    def clear(self, fault: PodFault | None = None) -> None:
        """Take one fault (all equal ones) out of force, or all."""
        self._faults = [] if fault is None else [other for other in self._faults if other != fault]
        self._on_change()

    def find(self, namespace: str, name: str) -> PodFault | None:
        """Return the newest fault that hits a pod."""
        return next((fault for fault in self._faults if fnmatchcase(f"{namespace}/{name}", fault.pod)), None)
