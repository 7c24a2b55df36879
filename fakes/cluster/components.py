"""The command lines of the components, and the ports they listen on."""

import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fakes.cluster.binaries import Binaries
from fakes.cluster.credentials import CONTROLLER_MANAGER_USER, SCHEDULER_USER, Credentials

ETCD: Final = "etcd"
API_SERVER: Final = "kube-apiserver"
CONTROLLER_MANAGER: Final = "kube-controller-manager"
SCHEDULER: Final = "kube-scheduler"

# Above 1024 and below 32768, where Linux begins to hand out ports to outgoing connections: one of those may take a port
# between our look at it and the component's, or while the API server is down for a restart.
_PORTS: Final = range(20000, 32768)
# etcd listens on sockets in the folder of the control plane, named `etcd:1` and `etcd:2`: it has no passwords, and
# nobody but the owner gets into the folder. They are named relative to the working directory, because an absolute path
# may be longer than the hundred bytes that a socket's name can have.
_ETCD_CLIENTS: Final = "unix://etcd:1"
_ETCD_PEERS: Final = "unix://etcd:2"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the command lines have in common. `port` is the API server's."""

    binaries: Binaries
    credentials: Credentials
    port: int
    node_lifecycle: bool

    @property
    def url(self) -> str:
        """Where the API is served."""
        return f"https://127.0.0.1:{self.port}"


def free_port() -> int:
    """Choose a port that nobody listens on just now. Somebody else may still be faster: callers try again."""
    for port in random.sample(_PORTS, k=len(_PORTS)):
        with socket.socket() as probe:
            try:
                # Without SO_REUSEADDR, so that a port with connections of the past in it counts as taken.
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise OSError(f"no free port between {_PORTS.start} and {_PORTS.stop - 1} on 127.0.0.1")


def etcd(binaries: Binaries) -> list[str]:
    """Return the command line of etcd. It may lose data when the machine loses power, and is faster for it."""
    return [
        str(binaries.etcd),
        "--data-dir=etcd",
        f"--listen-client-urls={_ETCD_CLIENTS}",
        f"--advertise-client-urls={_ETCD_CLIENTS}",
        f"--listen-peer-urls={_ETCD_PEERS}",
        f"--initial-advertise-peer-urls={_ETCD_PEERS}",
        f"--initial-cluster=default={_ETCD_PEERS}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def api_server(plan: Plan) -> list[str]:
    """Return the command line of the API server: RBAC on, users by token, service-account tokens by TokenRequest."""
    credentials = plan.credentials
    return [
        str(plan.binaries.kube_apiserver),
        f"--etcd-servers={_ETCD_CLIENTS}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={plan.port}",
        *_serving(credentials),
        f"--token-auth-file={credentials.token_file}",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={credentials.service_account_key}",
        f"--service-account-signing-key-file={credentials.service_account_key}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--allow-privileged",
        # The Service `kubernetes` cannot point at a loopback address; trying fills the log.
        "--endpoint-reconciler-type=none",
    ]


def controller_manager(plan: Plan, *, port: int) -> list[str]:
    """Return the command line of the controller manager.

    It takes the not-ready taint off new Nodes, evicts from Nodes whose Lease is stale (unless `node_lifecycle` is
    off), finishes foreground deletions, and makes pods for StatefulSets and Jobs. At its usual client rate of 20 a
    second the taint comes off fifty Nodes up to ten seconds late, hence the higher one.
    """
    kubeconfig = plan.credentials.kubeconfigs[CONTROLLER_MANAGER_USER]
    return [
        str(plan.binaries.kube_controller_manager),
        *_client(kubeconfig),
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        f"--secure-port={port}",
        *_serving(plan.credentials),
        f"--service-account-private-key-file={plan.credentials.service_account_key}",
        f"--root-ca-file={plan.credentials.ca}",
        f"--controllers=*{'' if plan.node_lifecycle else ',-node-lifecycle-controller'}",
    ]


def scheduler(plan: Plan, *, port: int) -> list[str]:
    """Return the command line of the scheduler."""
    kubeconfig = plan.credentials.kubeconfigs[SCHEDULER_USER]
    return [
        str(plan.binaries.kube_scheduler),
        *_client(kubeconfig),
        f"--secure-port={port}",
        *_serving(plan.credentials),
    ]


def _serving(credentials: Credentials) -> list[str]:
    return [f"--tls-cert-file={credentials.certificate}", f"--tls-private-key-file={credentials.key}"]


def _client(kubeconfig: Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        # The API server knows no client certificates here, so what they would look up there never comes.
        "--authentication-skip-lookup",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    ]
