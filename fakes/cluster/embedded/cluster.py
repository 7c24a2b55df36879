"""The embedded control plane as tests and the demo have it: a child process behind the interface of the real one."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from fakes.cluster import binaries, credentials
from fakes.cluster.api import ApiClient
from fakes.cluster.process import Supervisor
from fakes.cluster.real import ComponentFailed

NAME: Final = "embedded-control-plane"

_ROOT: Final = Path(__file__).parents[3]
# Far above the second it takes: a machine with all cores busy needs several times that.
_READY_TIMEOUT: Final = 60.0
_POLL: Final = 0.02
_LOG_LINES: Final = 15
_KUBECTL_TIMEOUT: Final = 60.0


class EmbeddedCluster:
    """A control plane of a user's own, a `fakes.cluster.interface.Cluster`.

    Certificates, log and kubeconfigs lie in one private folder, which `stop` removes: a temporary one, or `directory`,
    which must be empty or absent. With `keep` it stays, but the objects do not: they are in memory. Whatever happens to
    this process, the control plane ends with it (see `fakes.cluster.supervisor`).
    """

    def __init__(self, directory: Path | None = None, *, keep: bool = False) -> None:
        self._directory = directory
        self._keep = keep
        self._folder: Path | None = None
        self._supervisor: Supervisor | None = None
        self._credentials: credentials.Credentials | None = None
        self._ports: dict[str, int] = {}
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
        """The kubeconfig of an administrator, readable by its owner only."""
        return self._made().kubeconfigs[credentials.ADMIN_USER]

    @property
    def url(self) -> str:
        """Where the API is served, such as `https://127.0.0.1:23456`."""
        self._made()
        return f"https://127.0.0.1:{self._ports['port']}"

    @property
    def ca(self) -> Path:
        """The certificate that vouches for the API server."""
        return self._made().ca

    @property
    def kubectl(self) -> Path | None:
        """A kubectl, built for the real control plane or on the PATH; None where there is none."""
        built = binaries.search().found.get("kubectl")
        on_path = shutil.which("kubectl")
        return built or (Path(on_path) if on_path else None)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and return once requests are answered. Raises ComponentFailed."""
        if self._folder is not None:
            raise RuntimeError("a control plane lives once: make a new one")
        self._folder = self._make_folder()
        try:
            self._supervisor = Supervisor(self._folder, keep=self._keep)
            made = credentials.create(self._folder)
            self._supervisor.start(
                NAME,
                argv=[sys.executable, "-m", "fakes.cluster.embedded", str(self._folder)],
                log=self._log,
                cwd=self._folder,
                env={"PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])},
            )
            address = self._folder / "address"
            self._wait(address.exists)
            self._ports = json.loads(address.read_text())
            self._credentials = made
            credentials.write_kubeconfigs(made, url=self.url)
            self._wait(self._is_ready)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it, remove the folder unless it is kept. Calling it again does nothing."""
        if self._folder is None or self._stopped:
            return
        self._stopped = True
        if self._supervisor is not None:
            self._supervisor.close()
        elif not self._keep:
            shutil.rmtree(self._folder, ignore_errors=True)

    def check(self) -> None:
        """Raise ComponentFailed when the control plane has ended by itself."""
        if not self.is_started or self._supervisor is None:
            raise RuntimeError("the control plane does not run")
        code = self._supervisor.poll()[NAME]
        if code is not None:
            raise self._failure(f"has ended with exit code {code}")

    def stop_apiserver(self, *, grace: float = 0.0) -> None:
        """Break all connections to the API and let nobody in; the objects stay. After a grace in seconds."""
        time.sleep(grace)
        self._control("/close")

    def start_apiserver(self) -> None:
        """Let clients in again, where it was. No watch can go on from before."""
        self._control("/open")
        self._wait(self._is_ready)

    def restart_apiserver(self, *, grace: float = 0.0) -> None:
        """Stop and start the API: same port, same certificates, same data."""
        self.stop_apiserver(grace=grace)
        self.start_apiserver()

    def client(self, *, user: str = credentials.ADMIN_USER) -> ApiClient:
        """Return a client for plain requests, by default the administrator's."""
        made = self._made()
        return ApiClient(self.url, ca=made.ca, token=made.tokens[user])

    def token_for(self, namespace: str, *, service_account: str, seconds: int = 3600) -> str:
        """Return a token of an existing service account. Raises ApiError when there is none."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        answer = self.client().request("POST", path, body={"spec": {"expirationSeconds": seconds}})
        token: str = answer["status"]["token"]
        return token

    def kubeconfig_for(self, namespace: str, *, service_account: str, seconds: int = 3600) -> Path:
        """Write a kubeconfig of an existing service account, with a token that is good for so many seconds."""
        return credentials.write_kubeconfig(
            self.folder / f"{namespace}.{service_account}.kubeconfig",
            url=self.url,
            ca=self.ca,
            user=f"system:serviceaccount:{namespace}:{service_account}",
            token=self.token_for(namespace, service_account=service_account, seconds=seconds),
            namespace=namespace,
        )

    def run_kubectl(self, *arguments: str) -> str:
        """Run kubectl as administrator and return what it prints. Raises ComponentFailed with what it said."""
        kubectl = self.kubectl
        if kubectl is None:
            raise ComponentFailed("there is no kubectl: neither on the PATH nor built for the real control plane")
        result = subprocess.run(
            [str(kubectl), f"--kubeconfig={self.kubeconfig}", *arguments],
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
        """Apply manifests, as `kubectl apply --server-side` would, and without kubectl. Raises ApiError."""
        client = self.client()
        for document in (document for path in paths for document in _documents(path)):
            client.request(
                "PATCH",
                f"{self._path(client, document)}?fieldManager=kubectl",
                body=document,
                content_type="application/apply-patch+yaml",
            )

    def _path(self, client: ApiClient, document: dict[str, Any]) -> str:
        version, metadata = document["apiVersion"], document["metadata"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        served = client.request("GET", base)["resources"]
        kind = next((entry for entry in served if entry["kind"] == document["kind"] and "/" not in entry["name"]), None)
        if kind is None:
            raise ComponentFailed(f"{version} {document['kind']} is not served")
        place = f"/namespaces/{metadata.get('namespace', 'default')}" if kind["namespaced"] else ""
        return f"{base}{place}/{kind['name']}/{metadata['name']}"

    def _make_folder(self) -> Path:
        if self._directory is None:
            return Path(tempfile.mkdtemp(prefix="control-plane-"))
        folder = self._directory.absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty, and it would be removed in the end")
        folder.chmod(0o700)
        return folder

    def _control(self, path: str) -> None:
        self.check()
        url = f"https://127.0.0.1:{self._ports['control']}"
        made = self._made()
        ApiClient(url, ca=made.ca, token=made.tokens[credentials.ADMIN_USER]).request("POST", path)

    def _is_ready(self) -> bool:
        return self.client().answers("/readyz")

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise self._failure(f"still runs, but is not ready after {_READY_TIMEOUT:.0f} s")
            time.sleep(_POLL)

    def _failure(self, what: str) -> ComponentFailed:
        last = self._log.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:] if self._log.exists() else []
        return ComponentFailed("\n".join((f"{NAME} {what}; the last it said:", *last)))

    @property
    def _log(self) -> Path:
        return self.folder / f"{NAME}.log"

    def _made(self) -> credentials.Credentials:
        if self._credentials is None:
            raise RuntimeError("the control plane has not been started")
        return self._credentials


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    yield from (document for document in yaml.safe_load_all(path.read_text()) if document)
