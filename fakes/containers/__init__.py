"""Pods without a container runtime: their containers are processes on this machine, each pod at a loopback address.

What a kubelet does is done: references are resolved, volumes are filled, init containers run one after the other,
probes ask, containers that end are started again with back-off, and a pod that is deleted has its grace period. What a
runtime would do is not: there are no namespaces, no cgroups and no users, so limits and security contexts have no
effect, and a container sees the whole machine. Paths of its mounts are written over, in arguments and variables, with
where they are. Linux alone.
"""

from fakes.containers.image import Image
from fakes.containers.runner import NETWORK, ProcessRunner
from fakes.containers.spec import ConfigError
from fakes.containers.timing import Timing

__all__ = ["NETWORK", "ConfigError", "Image", "ProcessRunner", "Timing"]
