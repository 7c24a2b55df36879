"""Runs those pods whose containers are all of images that this machine has a program for."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from fakes.containers.image import Image
from fakes.containers.pod import ProcessPod
from fakes.containers.timing import Timing
from fakes.nodes.api import Object, uid_of
from fakes.nodes.running import Read

# Where pods have their addresses, for NodeSettings.pod_network: each its own, so that all may have the same ports.
NETWORK: Final = "127.96.0.0/12"


class ProcessRunner:
    """A runner of pods. Their files are in `folder`, their logs in `logs`, a folder for each pod's name.

    `images` has the programs by the names that pods give to their images.
    """

    def __init__(self, images: Mapping[str, Image], *, folder: Path, logs: Path, timing: Timing | None = None) -> None:
        self._images = images
        self._folder = folder
        self._logs = logs
        self._timing = timing or Timing()

    def takes(self, pod: Object) -> bool:
        """Whether it has a program for each of the pod's containers; pods with sidecars are none of its."""
        first = pod["spec"].get("initContainers") or ()
        if any("restartPolicy" in one for one in first):
            return False
        return all(one.get("image") in self._images for one in (*first, *pod["spec"]["containers"]))

    def log_of(self, namespace: str, pod: str, container: str) -> Path:
        """Return where the log of a container is, that of all pods that ever had the name."""
        return self._logs / f"{namespace}_{pod}" / f"{container}.log"

    def start(self, pod: Object, *, address: str, read: Read, on_change: Callable[[], None]) -> ProcessPod:
        """Start a pod that has this address."""
        name = f"{pod['metadata']['namespace']}_{pod['metadata']['name']}"
        return ProcessPod(
            pod,
            images=self._images,
            address=address,
            folder=self._folder / f"{name}_{re.sub('[^0-9A-Za-z-]', '', uid_of(pod))}",
            logs=self._logs / name,
            read=read,
            timing=self._timing,
            on_change=on_change,
        )
