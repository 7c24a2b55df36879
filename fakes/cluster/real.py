"""The real control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler on loopback."""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from fakes.cluster import components, credentials
from fakes.cluster.api import ApiClient, ApiError
from fakes.cluster.base import ComponentFailed as ComponentFailed
from fakes.cluster.base import LocalCluster, documents
from fakes.cluster.binaries import Binaries, find
from fakes.cluster.components import API_SERVER, CONTROLLER_MANAGER, ETCD, SCHEDULER, Plan

# Chances to find ports that nobody takes in the moment before the components do.
_ATTEMPTS: Final = 3
_PORT_TAKEN: Final = "address already in use"


class _PortTaken(ComponentFailed):
    """It ended because somebody else listens on its port."""


class RealCluster(LocalCluster):
    """The real one. Nodes are up to the caller, who also renews their Leases.

    With `node_lifecycle` off nothing happens to Nodes without one. Raises BinariesMissing when the programs are not
    there: nothing is built here.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        keep: bool = False,
        node_lifecycle: bool = True,
        binaries: Binaries | None = None,
    ) -> None:
        super().__init__(directory, keep=keep)
        self._binaries = find() if binaries is None else binaries
        self._node_lifecycle = node_lifecycle
        self._plan: Plan | None = None

    @property
    def url(self) -> str:
        """Where the API is served, such as `https://127.0.0.1:23456`."""
        return self._running().url

    @property
    def kubectl(self) -> Path:
        """The kubectl of this control plane's version."""
        return self._binaries.kubectl

    def stop_apiserver(self, *, grace: float = 0.0) -> None:
        """Stop the API server: by SIGTERM with a grace in seconds, and by SIGKILL.

        After SIGTERM it refuses new connections and waits for open watches, which would take a minute.
        """
        self._supervised().stop(API_SERVER, grace=grace)

    def start_apiserver(self) -> None:
        """Start the API server again where it was, and return once it is ready."""
        self._run(API_SERVER, components.api_server(self._running()))
        self._wait("readiness of the API server", self._is_ready, names=(ETCD, API_SERVER))

    def apply(self, *paths: Path) -> None:
        """Apply manifests and wait until the custom resources among them are served."""
        self.run_kubectl("apply", "--server-side", *(f"--filename={path}" for path in paths))
        definitions = [made for made in documents(*paths) if made.get("kind") == "CustomResourceDefinition"]
        names = [f"customresourcedefinition/{definition['metadata']['name']}" for definition in definitions]
        if names:
            self.run_kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
        for path in (path for definition in definitions for path in _served(definition)):
            # An established kind is answered for with 429 until its cache is filled.
            self._wait(f"answer for {path}", partial(self.client().answers, f"{path}?limit=1"), names=(API_SERVER,))

    def _launch(self, made: credentials.Credentials) -> None:
        self._run(ETCD, components.etcd(self._binaries))
        _on_a_free_port(partial(self._first_api_server, made))
        _on_a_free_port(partial(self._beside, CONTROLLER_MANAGER, components.controller_manager))
        _on_a_free_port(partial(self._beside, SCHEDULER, components.scheduler))
        self._wait("the first service account", self._has_default_account, names=(CONTROLLER_MANAGER,))

    def _first_api_server(self, made: credentials.Credentials, port: int) -> None:
        self._plan = Plan(binaries=self._binaries, credentials=made, port=port, node_lifecycle=self._node_lifecycle)
        credentials.write_kubeconfigs(made, url=self.url)
        self.start_apiserver()

    def _beside(self, name: str, command_line: Callable[..., list[str]], port: int) -> None:
        self._run(name, command_line(self._running(), port=port))
        # A stranger on this port does not have our certificate, so his answer does not count.
        health = ApiClient(f"https://127.0.0.1:{port}", ca=self.ca)
        self._wait(f"health of {name}", partial(health.answers, "/healthz"), names=(name,))

    def _has_default_account(self) -> bool:
        # Pods cannot be created in a namespace before the controller manager has made its account.
        with contextlib.suppress(ApiError):
            self.client().request("GET", "/api/v1/namespaces/default/serviceaccounts/default")
            return True
        return False

    def _failure(self, name: str, what: str) -> ComponentFailed:
        failure = super()._failure(name, what)
        return _PortTaken(str(failure)) if _PORT_TAKEN in str(failure) else failure

    def _running(self) -> Plan:
        if self._plan is None:
            raise RuntimeError("the control plane has not been started")
        return self._plan


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
