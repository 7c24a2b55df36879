"""The real control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler on loopback."""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from fakes.cluster import components, credentials
from fakes.cluster.api import ApiClient, ApiError
from fakes.cluster.binaries import Binaries, find
from fakes.cluster.components import API_SERVER, CONTROLLER_MANAGER, ETCD, SCHEDULER, Plan
from fakes.cluster.process import Supervisor

# Far above the two to three seconds it takes: a machine with all cores busy needs several times that.
_READY_TIMEOUT: Final = 60.0
_POLL: Final = 0.03
# Chances to find ports that nobody takes in the moment before the components do.
_ATTEMPTS: Final = 3
_LOG_LINES: Final = 15
_KUBECTL_TIMEOUT: Final = 60.0
_PORT_TAKEN: Final = "address already in use"


class ComponentFailed(RuntimeError):
    """A component ended or did not become ready; the message has the last lines of its log."""


class _PortTaken(ComponentFailed):
    """It ended because somebody else listens on its port."""


class RealCluster:
    """A control plane of a user's own, a `fakes.cluster.interface.Cluster`.

    Certificates, data, logs and kubeconfigs lie in one private folder, which `stop` removes: a temporary one, or
    `directory`, which must be empty or absent. With `keep` it stays. Whatever happens to this process, the components
    end with it (see `fakes.cluster.supervisor`). Nodes are up to the caller, who also renews their Leases; with
    `node_lifecycle` off nothing happens to Nodes without one.

    Raises BinariesMissing when the programs are not there: nothing is built here.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        keep: bool = False,
        node_lifecycle: bool = True,
        binaries: Binaries | None = None,
    ) -> None:
        self._binaries = find() if binaries is None else binaries
        self._directory = directory
        self._keep = keep
        self._node_lifecycle = node_lifecycle
        self._folder: Path | None = None
        self._supervisor: Supervisor | None = None
        self._plan: Plan | None = None
        self._stopped = False

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
        return self._running().credentials.kubeconfigs[credentials.ADMIN_USER]

    @property
    def url(self) -> str:
        """Where the API is served, such as `https://127.0.0.1:23456`."""
        return self._running().url

    @property
    def ca(self) -> Path:
        """The certificate that vouches for the API server."""
        return self._running().credentials.ca

    @property
    def kubectl(self) -> Path:
        """The kubectl of this control plane's version."""
        return self._binaries.kubectl

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
            made = credentials.create(self._folder)
            self._run(ETCD, components.etcd(self._binaries))
            _on_a_free_port(partial(self._first_api_server, made))
            _on_a_free_port(partial(self._beside, CONTROLLER_MANAGER, components.controller_manager))
            _on_a_free_port(partial(self._beside, SCHEDULER, components.scheduler))
            self._wait("the first service account", self._has_default_account, names=(CONTROLLER_MANAGER,))
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

    def stop_apiserver(self, *, grace: float = 0.0) -> None:
        """Stop the API server: by SIGTERM with a grace in seconds, and by SIGKILL.

        After SIGTERM it refuses new connections and waits for open watches, which would take a minute.
        """
        self._supervised().stop(API_SERVER, grace=grace)

    def start_apiserver(self) -> None:
        """Start the API server again where it was, and return once it is ready."""
        self._run(API_SERVER, components.api_server(self._running()))
        self._wait("readiness of the API server", self._api_server_ready, names=(ETCD, API_SERVER))

    def restart_apiserver(self, *, grace: float = 0.0) -> None:
        """Stop and start the API server: same port, same certificates, same data."""
        self.stop_apiserver(grace=grace)
        self.start_apiserver()

    def client(self, *, user: str = credentials.ADMIN_USER) -> ApiClient:
        """Return a client for plain requests, by default the administrator's."""
        made = self._running().credentials
        return ApiClient(self.url, ca=made.ca, token=made.tokens[user])

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

    def apply(self, *paths: Path) -> None:
        """Apply manifests and wait until the custom resources among them are served."""
        self.run_kubectl("apply", "--server-side", *(f"--filename={path}" for path in paths))
        documents = [document for path in paths for document in _documents(path)]
        definitions = [document for document in documents if document.get("kind") == "CustomResourceDefinition"]
        names = [f"customresourcedefinition/{definition['metadata']['name']}" for definition in definitions]
        if names:
            self.run_kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
        for path in (path for definition in definitions for path in _served(definition)):
            # An established kind is answered for with 429 until its cache is filled.
            self._wait(f"answer for {path}", partial(self.client().answers, f"{path}?limit=1"), names=(API_SERVER,))

    def _make_folder(self) -> Path:
        if self._directory is None:
            return Path(tempfile.mkdtemp(prefix="control-plane-"))
        folder = self._directory.absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty, and it would be removed in the end")
        folder.chmod(0o700)
        return folder

    def _first_api_server(self, made: credentials.Credentials, port: int) -> None:
        self._plan = Plan(binaries=self._binaries, credentials=made, port=port, node_lifecycle=self._node_lifecycle)
        credentials.write_kubeconfigs(made, url=self.url)
        self.start_apiserver()

    def _beside(self, name: str, command_line: Callable[..., list[str]], port: int) -> None:
        self._run(name, command_line(self._running(), port=port))
        # A stranger on this port does not have our certificate, so his answer does not count.
        health = ApiClient(f"https://127.0.0.1:{port}", ca=self.ca)
        self._wait(f"health of {name}", partial(health.answers, "/healthz"), names=(name,))

    def _api_server_ready(self) -> bool:
        return self.client().answers("/readyz")

    def _has_default_account(self) -> bool:
        # Pods cannot be created in a namespace before the controller manager has made its account.
        with contextlib.suppress(ApiError):
            self.client().request("GET", "/api/v1/namespaces/default/serviceaccounts/default")
            return True
        return False

    def _run(self, name: str, argv: Sequence[str]) -> None:
        self._supervised().start(name, argv=argv, log=self._log(name), cwd=self.folder)

    def _wait(self, what: str, condition: Callable[[], bool], *, names: Sequence[str]) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT
        while not condition():
            codes = self._supervised().poll()
            for name in names:
                if codes[name] is not None:
                    raise self._failure(name, f"has ended with exit code {codes[name]}")
            if time.monotonic() > deadline:
                raise self._failure(names[-1], f"still runs, but after {_READY_TIMEOUT:.0f} s there is no {what}")
            time.sleep(_POLL)

    def _failure(self, name: str, what: str) -> ComponentFailed:
        try:
            last = self._log(name).read_text(errors="replace").strip().splitlines()[-_LOG_LINES:]
        except OSError:
            last = []
        kind = _PortTaken if any(_PORT_TAKEN in line for line in last) else ComponentFailed
        return kind("\n".join((f"{name} {what}; the last it said:", *last)))

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _running(self) -> Plan:
        if self._plan is None:
            raise RuntimeError("the control plane has not been started")
        return self._plan

    def _supervised(self) -> Supervisor:
        if self._supervisor is None or self._stopped:
            raise RuntimeError("the control plane does not run")
        return self._supervisor


def _on_a_free_port(start: Callable[[int], None]) -> None:
    """Start something on a port, and on another one when somebody took it in the moment before."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(_PortTaken):
            return start(components.free_port())
    return start(components.free_port())


def _served(definition: dict[str, Any]) -> list[str]:
    """Return the paths under which a custom resource is served."""
    spec = definition["spec"]
    versions = [version["name"] for version in spec["versions"] if version["served"]]
    return [f"/apis/{spec['group']}/{version}/{spec['names']['plural']}" for version in versions]


def _documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]
