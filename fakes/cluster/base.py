"""What both of our control planes have in common: a private folder, child processes in it, and ways to ask the API."""

import shutil
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from fakes.cluster import credentials
from fakes.cluster.api import ApiClient
from fakes.cluster.process import Supervisor

# Far above the seconds it takes: a machine with all cores busy needs several times that.
_READY_TIMEOUT: Final = 60.0
_POLL: Final = 0.03
_LOG_LINES: Final = 15
_KUBECTL_TIMEOUT: Final = 60.0


class ComponentFailed(RuntimeError):
    """A component ended or did not become ready; the message has the last lines of its log."""


class LocalCluster(ABC):
    """A control plane of a user's own, a `fakes.cluster.interface.ControlPlane` but for what its components are.

    Certificates, data, logs and kubeconfigs lie in one private folder, which `stop` removes: a temporary one, or
    `directory`, which must be empty or absent. With `keep` it stays. Whatever happens to this process, the components
    end with it (see `fakes.cluster.supervisor`).
    """

    def __init__(self, directory: Path | None = None, *, keep: bool = False) -> None:
        self._directory = directory
        self._keep = keep
        self._folder: Path | None = None
        self._supervisor: Supervisor | None = None
        self._credentials: credentials.Credentials | None = None
        self._stopped = False

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the API is served, such as `https://127.0.0.1:23456`."""

    @property
    @abstractmethod
    def kubectl(self) -> Path | None:
        """A kubectl that fits, None where there is none."""

    @abstractmethod
    def stop_apiserver(self, *, grace: float = 0.0) -> None:
        """Let nobody in any more; what is stored stays. After a grace in seconds."""

    @abstractmethod
    def start_apiserver(self) -> None:
        """Let clients in again where it was, and return once it is ready."""

    @abstractmethod
    def _launch(self, made: credentials.Credentials) -> None:
        """Run the components and return once requests are answered."""

    @property
    def is_started(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._supervisor is not None and not self._stopped

    @property
    def folder(self) -> Path:
        """The folder of this control plane."""
        if self._folder is None:
            raise RuntimeError("the control plane has not been started")
        return self._folder

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of an administrator (`system:masters`), readable by its owner only."""
        return self._made().kubeconfigs[credentials.ADMIN_USER]

    @property
    def ca(self) -> Path:
        """The certificate that vouches for the API server."""
        return self._made().ca

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and return once all components say that they are healthy. Raises ComponentFailed."""
        if self._folder is not None:
            raise RuntimeError("a control plane lives once: make a new one")
        self._folder = self._make_folder()
        try:
            self._supervisor = Supervisor(self._folder, keep=self._keep)
            self._credentials = credentials.create(self._folder)
            self._launch(self._credentials)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all components, remove the folder unless it is kept. Calling it again does nothing."""
        if self._folder is None or self._stopped:
            return
        self._stopped = True
        if self._supervisor is not None:
            self._supervisor.close()
        elif not self._keep:
            shutil.rmtree(self._folder, ignore_errors=True)

    def check(self) -> None:
        """Raise ComponentFailed when a component has ended that nobody has stopped."""
        for name, code in self._supervised().poll().items():
            if code is not None:
                raise self._failure(name, f"has ended with exit code {code}")

    def restart_apiserver(self, *, grace: float = 0.0) -> None:
        """Stop and start the API server: same port, same certificates, same data."""
        self.stop_apiserver(grace=grace)
        self.start_apiserver()

    def client(self, *, user: str = credentials.ADMIN_USER) -> ApiClient:
        """Return a client for plain requests, by default the administrator's."""
        return ApiClient(self.url, ca=self.ca, token=self._made().tokens[user])

    def token_for(self, namespace: str, *, service_account: str, seconds: int = 3600) -> str:
        """Return a token of an existing service account. Raises ApiError when there is none."""
        answer = self.client().request(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token",
            body={
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": seconds},
            },
        )
        token: str = answer["status"]["token"]
        return token

    def kubeconfig_for(self, namespace: str, *, service_account: str, seconds: int = 3600) -> Path:
        """Write a kubeconfig of an existing service account, with a token that is good for so many seconds."""
        return credentials.write_kubeconfig(
            # No namespace has a dot in its name, so two accounts never share a file.
            self.folder / f"{namespace}.{service_account}.kubeconfig",
            url=self.url,
            ca=self.ca,
            user=f"system:serviceaccount:{namespace}:{service_account}",
            token=self.token_for(namespace, service_account=service_account, seconds=seconds),
            namespace=namespace,
        )

    def run_kubectl(self, *arguments: str) -> str:
        """Run kubectl as administrator and return what it prints. Raises ComponentFailed with what it said."""
        if self.kubectl is None:
            raise ComponentFailed("there is no kubectl: neither on the PATH nor built for the real control plane")
        result = subprocess.run(
            [str(self.kubectl), f"--kubeconfig={self.kubeconfig}", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_KUBECTL_TIMEOUT,
            check=False,
        )
        if result.returncode != 0:
            raise ComponentFailed(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def _make_folder(self) -> Path:
        if self._directory is None:
            return Path(tempfile.mkdtemp(prefix="control-plane-"))
        folder = self._directory.absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty, and it would be removed in the end")
        folder.chmod(0o700)
        return folder

    def _run(self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        self._supervised().start(name, argv=argv, log=self._log(name), cwd=self.folder, env=env)

    def _wait(self, what: str, condition: Callable[[], bool], *, names: Sequence[str]) -> None:
        """Wait for something that some components, which have to run, bring about. Raises ComponentFailed."""
        deadline = time.monotonic() + _READY_TIMEOUT
        while not condition():
            codes = self._supervised().poll()
            for name in names:
                if codes[name] is not None:
                    raise self._failure(name, f"has ended with exit code {codes[name]}")
            if time.monotonic() > deadline:
                raise self._failure(names[-1], f"still runs, but after {_READY_TIMEOUT:.0f} s there is no {what}")
            time.sleep(_POLL)

    def _is_ready(self) -> bool:
        return self.client().answers("/readyz")

    def _failure(self, name: str, what: str) -> ComponentFailed:
        try:
            last = self._log(name).read_text(errors="replace").strip().splitlines()[-_LOG_LINES:]
        except OSError:
            last = []
        return ComponentFailed("\n".join((f"{name} {what}; the last it said:", *last)))

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _made(self) -> credentials.Credentials:
        if self._credentials is None:
            raise RuntimeError("the control plane has not been started")
        return self._credentials

    def _supervised(self) -> Supervisor:
        if self._supervisor is None or self._stopped:
            raise RuntimeError("the control plane does not run")
        return self._supervisor


def documents(*paths: Path) -> list[dict[str, Any]]:
    """Return what is in manifests."""
    return [document for path in paths for document in yaml.safe_load_all(path.read_text()) if document]
