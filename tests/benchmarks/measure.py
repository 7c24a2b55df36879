"""What a process and its calls have cost between two moments, and how a list of seconds is summed up."""

import asyncio
import os
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from fakes.azure import CallLog as ArmLog
from fakes.proxy import CallLog as KubeLog

_TICKS: Final = os.sysconf("SC_CLK_TCK")
# A process is at rest once it has taken less than that of a core for so many seconds.
_REST_SECONDS: Final = 5.0
_REST_SHARE: Final = 0.05
_SAMPLE_SECONDS: Final = 0.25


@dataclass(frozen=True, kw_only=True)
class Usage:
    """All that has been used up to a moment. `wall` and `cpu` in seconds; calls by what they asked for."""

    wall: float
    cpu: float
    kube: Counter[str]
    arm: Counter[str]

    @classmethod
    def now(cls, pid: int, *, kube: KubeLog, arm: ArmLog) -> Self:
        """Look at a process and at the logs of both sides. What kopf asks once at its start is not a claim's."""
        return cls(
            wall=time.monotonic(),
            cpu=cpu_seconds(pid),
            kube=Counter({f"{verb} {resource}": n for (verb, resource), n in kube.counts().items() if resource}),
            arm=Counter(arm.dump()["counts"]),
        )

    def since(self, earlier: "Usage") -> "Usage":
        """Return what was used between two moments. Watches are no requests: they stay open."""
        kube = Counter({call: n for call, n in (self.kube - earlier.kube).items() if not call.startswith("watch ")})
        return Usage(wall=self.wall - earlier.wall, cpu=self.cpu - earlier.cpu, kube=kube, arm=self.arm - earlier.arm)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process in user and kernel: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_mib(pid: int) -> float:
    """Return the memory that a process has resident, in MiB."""
    return _status_mib(pid, "VmRSS:")


def peak_rss_mib(pid: int) -> float:
    """Return the most memory that a process has had resident, in MiB."""
    return _status_mib(pid, "VmHWM:")


def _status_mib(pid: int, field: str) -> float:
    lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


async def rest_begins(pid: int) -> float:
    """Wait until a process has come to rest, and return when that began, in seconds of `time.monotonic`."""
    samples = [(time.monotonic(), cpu_seconds(pid))]
    while True:
        await asyncio.sleep(_SAMPLE_SECONDS)
        now, used = time.monotonic(), cpu_seconds(pid)
        samples.append((now, used))
        begun, used_before = max((s for s in samples if s[0] <= now - _REST_SECONDS), default=(now, used))
        if begun < now and used - used_before < _REST_SHARE * (now - begun):
            return begun


def spread(seconds: Sequence[float]) -> str:
    """Return minimum, median and maximum."""
    return _joined(min(seconds), statistics.median(seconds), max(seconds)) if seconds else "-"


def tail(seconds: Sequence[float]) -> str:
    """Return median, 99th percentile and maximum."""
    return _joined(statistics.median(seconds), percentile(seconds, 99), max(seconds)) if seconds else "-"


def percentile(seconds: Sequence[float], percent: float) -> float:
    """Return the least of the values that so many percent of them do not exceed."""
    ordered = sorted(seconds)
    return ordered[max(0, -(-int(percent * len(ordered)) // 100) - 1)]


def _joined(*values: float) -> str:
    return " / ".join(f"{value:.2f}" if value < 10 else f"{value:.1f}" for value in values)
