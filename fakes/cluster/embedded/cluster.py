"""The embedded control plane as tests and the demo have it: a child process behind the interface of the real one."""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Final

from fakes.cluster import binaries, credentials
from fakes.cluster.api import ApiClient
from fakes.cluster.base import ComponentFailed, LocalCluster, documents

NAME: Final = "embedded-control-plane"

_ROOT: Final = Path(__file__).parents[3]


class EmbeddedCluster(LocalCluster):
    """The one in Python. With `keep` the folder stays, but the objects do not: they are in memory."""

    def __init__(self, directory: Path | None = None, *, keep: bool = False) -> None:
        super().__init__(directory, keep=keep)
        self._ports: dict[str, int] = {}

    @property
    def url(self) -> str:
        """Where the API is served, such as `https://127.0.0.1:23456`."""
        if not self._ports:
            raise RuntimeError("the control plane has not been started")
        return f"https://127.0.0.1:{self._ports['port']}"

    @property
    def kubectl(self) -> Path | None:
        """A kubectl, built for the real control plane or on the PATH; None where there is none."""
        built = binaries.search().found.get("kubectl")
        on_path = shutil.which("kubectl")
        return built or (Path(on_path) if on_path else None)

    def stop_apiserver(self, *, grace: float = 0.0) -> None:
        """Break all connections to the API and let nobody in; the objects stay. After a grace in seconds."""
        time.sleep(grace)
        self._control("/close")

    def start_apiserver(self) -> None:
        """Let clients in again, where it was. No watch can go on from before."""
        self._control("/open")
        self._wait("readiness", self._is_ready, names=(NAME,))

    def apply(self, *paths: Path) -> None:
        """Apply manifests, as `kubectl apply --server-side` would, and without kubectl. Raises ApiError."""
        client = self.client()
        for document in documents(*paths):
            path = f"{_path(client, document)}?fieldManager=kubectl"
            client.request("PATCH", path, body=document, content_type="application/apply-patch+yaml")

    def _launch(self, made: credentials.Credentials) -> None:
        path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        argv = [sys.executable, "-m", "fakes.cluster.embedded", str(self.folder)]
        self._run(NAME, argv, env={"PYTHONPATH": path})
        address = self.folder / "address"
        self._wait("address", address.exists, names=(NAME,))
        self._ports = json.loads(address.read_text())
        credentials.write_kubeconfigs(made, url=self.url)
        self._wait("readiness", self._is_ready, names=(NAME,))

    def _control(self, path: str) -> None:
        self.check()
        url = f"https://127.0.0.1:{self._ports['control']}"
        ApiClient(url, ca=self.ca, token=self._made().tokens[credentials.ADMIN_USER]).request("POST", path)


def _path(client: ApiClient, document: dict[str, Any]) -> str:
    """Return where the object of a manifest is."""
    version, metadata = document["apiVersion"], document["metadata"]
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    served = client.request("GET", base)["resources"]
    kind = next((entry for entry in served if entry["kind"] == document["kind"] and "/" not in entry["name"]), None)
    if kind is None:
        raise ComponentFailed(f"{version} {document['kind']} is not served")
    place = f"/namespaces/{metadata.get('namespace', 'default')}" if kind["namespaced"] else ""
    return f"{base}{place}/{kind['name']}/{metadata['name']}"
