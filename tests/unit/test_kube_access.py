"""Where the API server is: one answer for our own calls and for kopf's."""

import json
from pathlib import Path

import pytest
from kubernetes.aio.config import incluster_config

from provisioner.kube import access
from provisioner.kube.access import ConfigException, load_configuration
from provisioner.kube.watch import _login
from tests.unit.kube_support import write_kubeconfig


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(access, "_TOKEN_FILE", tmp_path / "pod" / "token")


@pytest.fixture
def ca_in_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    token, ca = tmp_path / "pod" / "token", tmp_path / "pod" / "ca.crt"
    token.parent.mkdir()
    token.write_text("of-the-pod")
    ca.write_text("a certificate")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(ca))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return ca


async def where() -> tuple[str, str | None]:
    """What kopf is told, after a check that our own calls use the same."""
    configuration, told = await load_configuration(), await _login()
    assert told.server == configuration.host
    header = await configuration.get_api_key_with_prefix("BearerToken")
    assert told.as_http_headers().get("Authorization") == header
    return told.server, told.token


async def test_pod_uses_its_service_account(tmp_path: Path, ca_in_cluster: Path) -> None:
    write_kubeconfig(tmp_path / "home" / ".kube" / "config", "https://home", token="t")
    assert await where() == ("https://10.0.0.1:443", "of-the-pod")
    assert (await _login()).ca_path == str(ca_in_cluster)


@pytest.mark.usefixtures("ca_in_cluster")
async def test_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kubeconfig(tmp_path / "other", "https://other", token="t")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "other"))
    assert await where() == ("https://other", "t")
    assert (await _login()).insecure


async def test_home_comes_last(tmp_path: Path) -> None:
    write_kubeconfig(tmp_path / "home" / ".kube" / "config", "https://home", username="me", password="p")
    server, _ = await where()
    assert server == "https://home"
    assert (await _login()).scheme == "Basic"


async def test_nothing_to_go_by_is_told() -> None:
    with pytest.raises(ConfigException):
        await load_configuration()


async def test_credential_plugin_is_asked_and_the_file_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / ".kube" / "config"
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "p"}}
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "echo",
        "args": [json.dumps(credential)],
        "interactiveMode": "Never",
    }
    write_kubeconfig(path, "https://home", exec=plugin)
    before = path.read_text()
    assert await where() == ("https://home", "p")
    assert path.read_text() == before
