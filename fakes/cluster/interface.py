"""What every control plane of ours is, whatever runs behind it."""

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from fakes.cluster.api import ApiClient
from fakes.cluster.credentials import ADMIN_USER


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


class ControlPlane(Cluster, Protocol):
    """A whole control plane of our own, whichever of the two, and what tests and the demo do with it."""

    def __enter__(self) -> Self:
        """Start."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        ...

    @property
    def is_started(self) -> bool:
        """Whether it was started and not stopped since."""
        ...

    @property
    def folder(self) -> Path:
        """The private folder of this control plane."""
        ...

    @property
    def ca(self) -> Path:
        """The certificate that vouches for the API server."""
        ...

    @property
    def kubectl(self) -> Path | None:
        """A kubectl that fits, None where there is none."""
        ...

    def check(self) -> None:
        """Raise ComponentFailed when something has ended that nobody has stopped."""
        ...

    def stop_apiserver(self, *, grace: float = 0.0) -> None:
        """Let nobody in any more; what is stored stays. After a grace in seconds."""
        ...

    def start_apiserver(self) -> None:
        """Let clients in again where it was, and return once it is ready."""
        ...

    def restart_apiserver(self, *, grace: float = 0.0) -> None:
        """Stop and start the API server: same port, same certificates, same data."""
        ...

    def client(self, *, user: str = ADMIN_USER) -> ApiClient:
        """Return a client for plain requests, by default the administrator's."""
        ...

    def token_for(self, namespace: str, *, service_account: str, seconds: int = 3600) -> str:
        """Return a token of an existing service account. Raises ApiError when there is none."""
        ...

    def kubeconfig_for(self, namespace: str, *, service_account: str, seconds: int = 3600) -> Path:
        """Write a kubeconfig of an existing service account, with a token that is good for so many seconds."""
        ...

    def run_kubectl(self, *arguments: str) -> str:
        """Run kubectl as administrator and return what it prints. Raises ComponentFailed with what it said."""
        ...

    def apply(self, *paths: Path) -> None:
        """Apply manifests and wait until the custom resources among them are served."""
        ...
