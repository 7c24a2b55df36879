"""Faults in front of any Kubernetes API: a reverse proxy on loopback that is told what to spoil."""

from fakes.proxy.calls import Call, CallLog
from fakes.proxy.faults import (
    Active,
    Answer,
    CutWatch,
    Delay,
    DelayEvents,
    Disconnect,
    DropEvents,
    FailWatch,
    Fault,
    StallWatch,
)
from fakes.proxy.proxy import FaultProxy

__all__ = [
    "Active",
    "Answer",
    "Call",
    "CallLog",
    "CutWatch",
    "Delay",
    "DelayEvents",
    "Disconnect",
    "DropEvents",
    "FailWatch",
    "Fault",
    "FaultProxy",
    "StallWatch",
]
