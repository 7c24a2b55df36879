"""What a phase has cost: wall time, CPU and memory of the controller, requests to Kubernetes and to Azure."""

import os
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from fakes.azure import CallLog as ArmLog
from fakes.proxy import CallLog as KubeLog

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_WIDTH: Final = 44


@dataclass(frozen=True, kw_only=True)
class Usage:
    """All that has been used up to a moment. `wall` and `cpu` in seconds; calls by what they asked for."""

    wall: float
    cpu: float
    kube: Counter[str]
    arm: Counter[str]

    @classmethod
    def now(cls, pid: int, *, kube: KubeLog | None, arm: ArmLog) -> Self:
        """Look at the controller's process and at the logs of both sides."""
        requests = kube.counts() if kube is not None else {}
        return cls(
            wall=time.monotonic(),
            cpu=cpu_seconds(pid),
            kube=Counter({f"{verb} {resource or 'discovery'}": n for (verb, resource), n in requests.items()}),
            arm=Counter(arm.dump()["counts"]),
        )

    def since(self, earlier: "Usage") -> "Usage":
        """Return what was used between two moments."""
        return Usage(
            wall=self.wall - earlier.wall,
            cpu=self.cpu - earlier.cpu,
            kube=self.kube - earlier.kube,
            arm=self.arm - earlier.arm,
        )


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process in user and kernel: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_rss_mib(pid: int) -> float:
    """Return the most memory that a process has had resident, in MiB."""
    lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def table(phases: dict[str, Usage], *, claims: int) -> list[str]:
    """Return the costs as lines, a column for each phase; calls and CPU are for each claim."""
    used = list(phases.values())
    kube, arm = (sorted(set().union(*(getattr(usage, side) for usage in used))) for side in ("kube", "arm"))
    return [
        heading(*phases),
        _row("wall time, s", (f"{usage.wall:.1f}" for usage in used)),
        _row("CPU of the controller, s", (f"{usage.cpu:.2f}" for usage in used)),
        _row("CPU of the controller a claim, ms", (f"{1000 * usage.cpu / claims:.2f}" for usage in used)),
        *(
            [_row("Kubernetes requests a claim", (f"{usage.kube.total() / claims:.2f}" for usage in used))]
            if kube
            else ()
        ),
        *(_row(f"  {call}", (f"{usage.kube[call] / claims:.3f}" for usage in used)) for call in kube),
        _row("ARM calls a claim", (f"{usage.arm.total() / claims:.2f}" for usage in used)),
        *(_row(f"  {call}", (f"{usage.arm[call] / claims:.3f}" for usage in used)) for call in arm),
    ]


def heading(*columns: str) -> str:
    """Return the line above the columns."""
    return _row("", columns)


def spread(what: str, seconds: Sequence[float]) -> str:
    """Return a line of median and maximum."""
    if not seconds:
        return _row(what, ("-", "-"))
    return _row(what, (f"{statistics.median(seconds):.3f}", f"{max(seconds):.3f}"))


def _row(what: str, values: Iterable[str]) -> str:
    return f"{what:<{_WIDTH}}" + "".join(f"{value:>12}" for value in values)
