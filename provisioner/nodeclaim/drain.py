"""Draining a Node: which pods have to leave it, in which order, and from when on by force. Pure.

The rules are Karpenter's: https://karpenter.sh/docs/concepts/disruption/#termination-controller.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from provisioner.apis import names
from provisioner.apis.durations import parse_duration
from provisioner.apis.pod import Pod
from provisioner.apis.times import format_time
from provisioner.nodeclaim.drain_rules import STUCK, leaves
from provisioner.nodeclaim.view import Eviction, NodeLoad

# How often the pods are listed: from the first to the second, as the drain gets longer, by a tenth of its age.
_FASTEST: Final = timedelta(seconds=1)
_SLOWEST: Final = timedelta(seconds=10)
# Seconds. With 0 the API server would forget a pod whose containers still run.
_LEAST_GRACE: Final = 1
_CRITICAL: Final = frozenset({"system-cluster-critical", "system-node-critical"})
# Pods that a condition names; the rest are counted.
_NAMED: Final = 3
_BUDGET: Final = re.compile(r"disruption ?budget", re.IGNORECASE)
_MAX_WHY: Final = 120


@dataclass(frozen=True, kw_only=True)
class Drain:
    """What draining a Node comes to at one moment.

    `waiting` are the pods that have to be gone first, `protected` the UIDs of those that ask not to be disrupted yet.
    `again_after` is when the mere passing of time changes something, None where it does not.
    """

    waiting: tuple[Pod, ...] = ()
    evictions: tuple[Eviction, ...] = ()
    protected: frozenset[str] = frozenset()
    again_after: timedelta | None = None


def drain(load: NodeLoad, *, now: datetime, deadline: datetime | None) -> Drain:
    """Return what is to be done about the Node's pods; no pod outlives the deadline, where there is one.

    Pods leave in four tiers, critical ones and those of DaemonSets later: who is evicted may still need them. A pod
    that could not use its grace period up before the deadline is deleted in time for that, whatever its tier.
    """
    waiting = sorted((pod for pod in load.pods if leaves(pod, now=now)), key=_order)
    protected = frozenset(pod.uid for pod in waiting if pod.deleted is None and _protection(pod, now) != 0)
    evictions = []
    for pod in waiting:
        if deadline is not None and _is_forced(pod, now=now, deadline=deadline):
            remaining = int((deadline - now).total_seconds())
            evictions.append(Eviction(pod=pod, grace_seconds=max(remaining, _LEAST_GRACE)))
        elif pod.deleted is None and _tier(pod) == _tier(waiting[0]) and pod.uid not in protected:
            evictions.append(Eviction(pod=pod))
    return Drain(
        waiting=tuple(waiting),
        evictions=tuple(evictions),
        protected=protected,
        again_after=_next_change(waiting, now=now, deadline=deadline),
    )


def pace(*, since: datetime, now: datetime) -> timedelta:
    """Return how long a look at the pods lasts in a drain that has begun then."""
    return min(max((now - since) / 10, _FASTEST), _SLOWEST)


def describe(drains: Iterable[Drain], *, deadline: datetime | None, blocked: Mapping[str, str]) -> str:
    """Say how many pods are waited for, and what holds the first few; `blocked`: see View."""
    pods = [(pod, _hindrance(pod, drain, blocked)) for drain in drains for pod in drain.waiting]
    # What somebody has to do something about comes first.
    pods.sort(key=lambda entry: (not entry[1], _order(entry[0])))
    named = [f"{pod.namespace}/{pod.name}" + (f" ({why})" if why else "") for pod, why in pods[:_NAMED]]
    count = "1 pod is" if len(pods) == 1 else f"{len(pods)} pods are"
    more = f" and {len(pods) - _NAMED} more" if len(pods) > _NAMED else ""
    end = f"; all will be deleted by {format_time(deadline)}" if deadline is not None else ""
    return f"{count} waiting to be evicted: {', '.join(named)}{more}{end}."


def _tier(pod: Pod) -> int:
    return 2 * (pod.priority_class in _CRITICAL) + pod.is_of_daemon_set


def _order(pod: Pod) -> tuple[int, str, str]:
    return _tier(pod), pod.namespace, pod.name


def _protection(pod: Pod, now: datetime) -> float | None:
    """Return the seconds for which the pod is not to be disrupted, None where there is no end to that.

    The annotation is "true", or a duration from the pod's start; anything else protects from nothing.
    """
    if pod.do_not_disrupt == "true":
        return None
    span = parse_duration(pod.do_not_disrupt)
    if not span:
        return 0.0
    if pod.started is None:
        return None
    return max(span.total_seconds() - (now - pod.started).total_seconds(), 0.0)


def _is_forced(pod: Pod, *, now: datetime, deadline: datetime) -> bool:
    if pod.deleted is not None:
        # Once it is to go with the least grace, asking again would not make it go sooner.
        return pod.deleted > deadline and (pod.deleted - now).total_seconds() > _LEAST_GRACE
    return _until_forced(pod, now=now, deadline=deadline) <= 0


def _until_forced(pod: Pod, *, now: datetime, deadline: datetime) -> float:
    # In seconds, not as moments: a grace period may be longer than the calendar.
    return (deadline - now).total_seconds() - pod.grace_seconds


def _next_change(waiting: Iterable[Pod], *, now: datetime, deadline: datetime | None) -> timedelta | None:
    seconds: list[float] = []
    for pod in waiting:
        if pod.deleted is not None:
            seconds.append((pod.deleted + STUCK - now).total_seconds())
            continue
        if left := _protection(pod, now):
            seconds.append(left)
        if deadline is not None:
            seconds.append(_until_forced(pod, now=now, deadline=deadline))
    coming = [span for span in seconds if span > 0]
    return timedelta(seconds=min(coming)) if coming else None


def _hindrance(pod: Pod, drain: Drain, blocked: Mapping[str, str]) -> str:
    if pod.deleted is not None:
        return ""
    if pod.uid in drain.protected:
        return names.DO_NOT_DISRUPT_ANNOTATION
    why = blocked.get(pod.uid, "")
    # Which one it is, and what it lacks, is told by an Event: here it would push everything else out of sight.
    return "a PodDisruptionBudget" if _BUDGET.search(why) else why[:_MAX_WHY]
