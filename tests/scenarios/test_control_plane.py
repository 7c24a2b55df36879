"""The real control plane: it starts fast, is secured as a cluster is, survives restarts and leaves nothing behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.cluster import components
from fakes.cluster.api import ApiClient, ApiError
from fakes.cluster.components import API_SERVER, CONTROLLER_MANAGER, ETCD, SCHEDULER
from fakes.cluster.interface import Cluster
from fakes.cluster.real import ComponentFailed, RealCluster

pytestmark = pytest.mark.real_only("it is about the real control plane itself")

ROOT = Path(__file__).parents[2]
# What is promised of a machine that does nothing else. Tests share theirs, so they allow more.
READY_SECONDS = 15.0
DEADLINE = 30.0
COMPONENTS = sorted([ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER])
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running_in(folder: Path) -> list[str]:
    """Names of the processes whose working directory is the folder, or was while it was there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "cwd").readlink()).removesuffix(" (deleted)") == str(folder):
                command = (process / "cmdline").read_bytes().split(b"\0")[0]
                found.append(Path(os.fsdecode(command)).name)
        except OSError:
            continue
    return sorted(found)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealCluster]:
    made = RealCluster()
    # From a thread that ends: the components must not end with it.
    thread = threading.Thread(target=made.start)
    started = time.monotonic()
    thread.start()
    thread.join()
    try:
        assert time.monotonic() - started < READY_SECONDS
        made.check()
        yield made
    finally:
        made.stop()
    assert running_in(made.folder) == []
    assert not made.folder.exists()
    made.stop()


@pytest.fixture
def admin(cluster: RealCluster) -> ApiClient:
    return cluster.client()


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "value"}}


def status_of(call: Callable[[], object]) -> int:
    try:
        call()
    except ApiError as error:
        return error.status
    return 200


def test_it_is_a_cluster_of_five_programs(cluster: RealCluster) -> None:
    behind_the_interface: Cluster = cluster
    assert behind_the_interface.url.startswith("https://127.0.0.1:")
    assert running_in(cluster.folder) == COMPONENTS
    assert re.search(r"Server Version: v1\.\d+\.\d+", cluster.run_kubectl("version"))


def test_kubeconfig_is_an_administrators_and_private(cluster: RealCluster) -> None:
    assert cluster.run_kubectl("auth", "can-i", "*", "*", "--all-namespaces") == "yes\n"
    assert cluster.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert cluster.folder.stat().st_mode & 0o777 == 0o700


def test_ports_stay_below_those_of_outgoing_connections(cluster: RealCluster) -> None:
    assert 1024 < int(cluster.url.rsplit(":", 1)[1]) < 32768


def test_nobody_is_let_in_without_a_token(cluster: RealCluster) -> None:
    anonymous = ApiClient(cluster.url, ca=cluster.ca)
    guessing = ApiClient(cluster.url, ca=cluster.ca, token="guess")
    assert status_of(lambda: anonymous.request("GET", "/api/v1/nodes")) == 403
    assert status_of(lambda: guessing.request("GET", "/api/v1/nodes")) == 401


def test_service_account_may_do_what_a_binding_grants(cluster: RealCluster, admin: ApiClient) -> None:
    admin.request("POST", "/api/v1/namespaces/default/serviceaccounts", body={"metadata": {"name": "reader"}})
    token = cluster.token_for("default", service_account="reader")
    reader = ApiClient(cluster.url, ca=cluster.ca, token=token)
    assert status_of(lambda: reader.request("GET", "/api/v1/nodes")) == 403
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    rule = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}
    admin.request("POST", f"{rbac}/clusterroles", body={"metadata": {"name": "reader"}, "rules": [rule]})
    admin.request(
        "POST",
        f"{rbac}/clusterrolebindings",
        body={
            "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}],
        },
    )
    until(lambda: status_of(lambda: reader.request("GET", "/api/v1/nodes")) == 200)
    assert status_of(lambda: reader.request("GET", "/api/v1/pods")) == 403


def test_kubeconfig_of_a_service_account_speaks_for_it(cluster: RealCluster) -> None:
    path = cluster.kubeconfig_for("default", service_account="default")
    assert path.stat().st_mode & 0o777 == 0o600
    # The last --kubeconfig counts, and a bare account may at least ask who it is.
    answer = cluster.run_kubectl(f"--kubeconfig={path}", "auth", "whoami", "-o=jsonpath={.status.userInfo.username}")
    assert answer == "system:serviceaccount:default:default"


def test_token_of_an_unknown_account_is_refused(cluster: RealCluster) -> None:
    assert status_of(lambda: cluster.token_for("default", service_account="nobody")) == 404


def test_new_node_is_freed_and_gets_a_pod(admin: ApiClient) -> None:
    """Controller manager and scheduler work: the taint goes once the Node is Ready, the pod is bound to it."""
    node = admin.request(
        "POST",
        "/api/v1/nodes",
        body={
            "metadata": {"name": "worker"},
            "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]},
        },
    )
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": node["metadata"]["creationTimestamp"]}
    room = {"cpu": "4", "memory": "8Gi", "pods": "10"}
    admin.request(
        "PATCH",
        "/api/v1/nodes/worker/status",
        body={"status": {"conditions": [ready], "capacity": room, "allocatable": room}},
        content_type="application/strategic-merge-patch+json",
    )
    pods = "/api/v1/namespaces/default/pods"
    admin.request(
        "POST", pods, body={"metadata": {"name": "one"}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
    )
    until(lambda: admin.request("GET", f"{pods}/one")["spec"].get("nodeName") == "worker")
    assert "taints" not in admin.request("GET", "/api/v1/nodes/worker")["spec"]


@pytest.mark.parametrize("grace", [0.0, 0.2], ids=["killed", "terminated"])
def test_restart_of_the_api_server_keeps_address_and_data(cluster: RealCluster, admin: ApiClient, grace: float) -> None:
    url, name = cluster.url, f"kept-{grace}"
    token = cluster.token_for("default", service_account="default")
    created = admin.request("POST", CONFIG_MAPS, body=config_map(name))
    cluster.stop_apiserver(grace=grace)
    with pytest.raises(ConnectionRefusedError):
        admin.request("GET", CONFIG_MAPS)
    cluster.check()
    cluster.start_apiserver()
    assert cluster.url == url
    assert admin.request("GET", f"{CONFIG_MAPS}/{name}")["metadata"]["uid"] == created["metadata"]["uid"]
    account = ApiClient(url, ca=cluster.ca, token=token)
    assert status_of(lambda: account.request("GET", CONFIG_MAPS)) == 403
    cluster.check()


def test_cluster_lives_once(cluster: RealCluster) -> None:
    with pytest.raises(RuntimeError, match="lives once"):
        cluster.start()
    cluster.check()


def test_folder_with_something_in_it_is_left_alone(cluster: RealCluster, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not empty"):
        RealCluster(tmp_path).start()
    assert (tmp_path / "thesis.tex").exists()


def test_taken_port_of_a_component_beside_the_api_server_is_noticed(
    cluster: RealCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server looks fine while the controller manager died of its port: it is started on another one."""
    choose, chosen = components.free_port, 0

    def second_is_taken() -> int:
        nonlocal chosen
        chosen += 1
        return int(stranger.getsockname()[1]) if chosen == 2 else choose()

    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        monkeypatch.setattr(components, "free_port", second_is_taken)
        with RealCluster(tmp_path / "second") as second:
            assert chosen == 4
            assert running_in(second.folder) == COMPONENTS
            second.check()
            assert "address already in use" in (second.folder / f"{CONTROLLER_MANAGER}.log").read_text()
    assert running_in(tmp_path / "second") == []


def test_component_that_fails_says_why(cluster: RealCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "etcd", lambda binaries: [str(binaries.etcd), "--data-dir=/dev/null/etcd"])
    with pytest.raises(ComponentFailed, match=r"etcd has ended with exit code \d+; the last(?s:.*)/dev/null/etcd"):
        RealCluster(tmp_path / "broken").start()
    assert running_in(tmp_path / "broken") == []
    assert not (tmp_path / "broken").exists()


def command(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fakes.cluster", f"--directory={folder}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_nothing_survives_a_kill_of_the_command(cluster: RealCluster, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    with command(folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"export KUBECONFIG={folder / 'kubeconfig'}\n"
        assert running_in(folder) == COMPONENTS
        process.kill()
    until(lambda: running_in(folder) == [])
    until(lambda: not folder.exists())


def test_command_can_be_stopped_while_it_starts(cluster: RealCluster, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    with command(folder) as process:
        until(lambda: API_SERVER in running_in(folder))
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=DEADLINE)
    assert (process.returncode, output) == (130, "")
    assert running_in(folder) == []
    assert not folder.exists()
