"""The peer's figures: Azure/gpu-provisioner at commit c09a56c0, measured on the same kind of machine (2 cores).

It ran against kube-apiserver 1.36 with etcd and a kube-controller-manager at 500 requests a second, and against an ARM
on loopback over TLS, in real time. Nodes joined one second after the operation had ended and their GPUs came two
seconds later, as they do here. Mostly one run a cell; an empty text where nothing was measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What the peer took for claims of one shape; texts as they stand in the table."""

    ready: str = ""
    arm_create: str = ""
    kube_create: str = ""
    gone: str = ""
    delete_sent: str = ""
    arm_delete: str = ""
    cpu: str = ""
    peak_rss: str = ""


# By claims, seconds of the operation, and its Retry-After.
SHAPES: Final[Mapping[tuple[int, float, float | None], Peer]] = {
    (1, 5.0, None): Peer(ready="30.1", arm_create="3"),
    (1, 5.0, 2.0): Peer(ready="6.1 to 7.1", arm_create="5"),
    (20, 35.0, None): Peer(
        ready="60.1 / 60.5 / 60.5",
        arm_create="5",
        delete_sent="0.10 / 0.15 / 0.16",
        gone="60.2 / 60.3 / 60.3",
        arm_delete="7",
    ),
    (50, 125.0, None): Peer(ready="150.1 / 150.6 / 150.8", arm_create="8"),
    (50, 120.0, 10.0): Peer(
        ready="122.2 / 125.9 / 131.2", arm_create="14", kube_create="7.5", cpu="0.78", peak_rss="74"
    ),
    (100, 300.0, None): Peer(arm_create="13"),
}
# Whatever the shape.
KUBE_CREATE: Final = "5.0 to 8.2"
KUBE_DELETE: Final = "4.0"
JOINED_TO_REGISTERED: Final = "median 1.1 to 1.3, max 1.7; 24 between two polls"
GPUS_TO_READY: Final = "median 0.45 to 2.2, max 7.3; KAITO's claims about 1 s before the GPUs"
PUTS_UNDER_QUOTA: Final = "200"
TOLD_OF_QUOTA: Final = "family and numbers cut off by KAITO"
PUTS_AFTER_KILL: Final = "3"
READY_AFTER_RESTART: Final = "92"
READY_AFTER_NODE: Final = "31"
DELETE_WHILE_CREATING: Final = "52; the deleted claim turns Ready meanwhile"
TOLD_OF_OUTAGE: Final = "no condition in 480"
IDLE: Final = "50 claims: 0.056 %"
IDLE_RSS: Final = "50 claims: 71"
IDLE_LISTS: Final = "1"
IDLE_KUBE: Final = "0"
RESTART_KUBE: Final = "50 claims: 10"
RESTART_ARM: Final = "50 claims: 2"
RESTART_READYZ: Final = "50 claims: 0.04"
