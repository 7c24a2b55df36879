"""What every control plane of ours is, whatever runs behind it."""

from pathlib import Path
from typing import Protocol


class Cluster(Protocol):
    """A Kubernetes API on loopback that tests and the demo start, use through a kubeconfig, and stop.

    A cluster lives once: after `stop` a new one is made.
    """

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of an administrator (`system:masters`), readable by its owner only."""
        ...

    @property
    def url(self) -> str:
        """Where the API is served, such as `https://127.0.0.1:23456`."""
        ...

    def start(self) -> None:
        """Start and return once requests are answered."""
        ...

    def stop(self) -> None:
        """Stop, leave no process and no file behind. Calling it again does nothing."""
        ...
