"""What is missing or wrong in the settings is said in one line, and nothing is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Far above what it takes: the machine may be busy.
TIMEOUT = 60.0

COMPLETE = {
    "ARM_SUBSCRIPTION_ID": "00000000-0000-4000-8000-000000000001",
    "ARM_RESOURCE_GROUP": "rg-gpu",
    "AZURE_CLUSTER_NAME": "aks-gpu",
    "DEPLOYMENT_MODE": "managed",
    "KUBECONFIG": "/does/not/exist",
}

# What is changed, and what the line must name: the setting, its value, what it may be.
WRONG: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "no subscription": (
        {"ARM_SUBSCRIPTION_ID": ""},
        ("ARM_SUBSCRIPTION_ID is missing", "subscription of the AKS cluster"),
    ),
    "no resource group": (
        {"ARM_RESOURCE_GROUP": ""},
        ("ARM_RESOURCE_GROUP is missing", "resource group", "not the MC_ one"),
    ),
    "no cluster": ({"AZURE_CLUSTER_NAME": " "}, ("AZURE_CLUSTER_NAME is missing", "name of the AKS cluster")),
    "no identity": (
        {"DEPLOYMENT_MODE": ""},
        ("AZURE_TENANT_ID is missing", "workload identity", "DEPLOYMENT_MODE=managed"),
    ),
    "no token file": (
        {
            "DEPLOYMENT_MODE": "self-hosted",
            "AZURE_TENANT_ID": "tenant",
            "AZURE_CLIENT_ID": "client",
            "AZURE_FEDERATED_TOKEN_FILE": "/no/token",
        },
        ("AZURE_FEDERATED_TOKEN_FILE", "there is no file '/no/token'"),
    ),
    "a path for a group": ({"ARM_RESOURCE_GROUP": "a/b"}, ("ARM_RESOURCE_GROUP is 'a/b'", "without slashes")),
    "no such cloud": ({"AZURE_CLOUD": "mars"}, ("AZURE_CLOUD is 'mars'", "public, usgovernment, china or custom")),
    "no such mode": ({"DEPLOYMENT_MODE": "cloudy"}, ("DEPLOYMENT_MODE is 'cloudy'", "self-hosted", "managed")),
    "no endpoint": ({"AZURE_CLOUD": "custom"}, ("ARM_ENDPOINT is missing", "cloud custom")),
    "plain HTTP": (
        {"AZURE_CLOUD": "custom", "ARM_ENDPOINT": "http://arm.example"},
        ("ARM_ENDPOINT is 'http://arm.example'", "https://"),
    ),
    "no worker": ({"RECONCILE_WORKERS": "0"}, ("RECONCILE_WORKERS is '0'", "greater than or equal to 1")),
    "no number": ({"INVENTORY_BUSY_SECONDS": "soon"}, ("INVENTORY_BUSY_SECONDS is 'soon'", "number")),
    "too fast": ({"INVENTORY_BUSY_SECONDS": "0.1"}, ("INVENTORY_BUSY_SECONDS is '0.1'", "greater than or equal to 1")),
    "no port": ({"METRICS_PORT": "70000"}, ("METRICS_PORT is '70000'", "less than or equal to 65535")),
    "no level": ({"LOG_LEVEL": "loud"}, ("LOG_LEVEL is 'loud'", "debug, info, warning or error")),
    "no boolean": ({"WAIT_FOR_GPUS": "perhaps"}, ("WAIT_FOR_GPUS is 'perhaps'", "boolean")),
    "no cluster access": ({}, ("KUBECONFIG is '/does/not/exist'", "no access to a cluster")),
}


def run_controller(*flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], **COMPLETE, **settings}
    return subprocess.run(
        [sys.executable, "-m", "provisioner", "run", *flags],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.mark.parametrize(("changed", "told"), WRONG.values(), ids=WRONG.keys())
def test_wrong_setting_is_told_in_one_line(changed: dict[str, str], told: tuple[str, ...]) -> None:
    assert_refused(run_controller(**changed), *told)


def test_flag_wins_and_is_named() -> None:
    assert_refused(run_controller("--workers", "many", RECONCILE_WORKERS="7"), "--workers is 'many'", "integer")


def test_what_may_be_a_password_is_not_told() -> None:
    ended = run_controller(AZURE_CLOUD="custom", ARM_ENDPOINT="https://me:hunter2@arm.example")
    assert_refused(ended, "ARM_ENDPOINT", "scheme, host and port alone")
    assert "hunter2" not in ended.stderr


@pytest.mark.parametrize("content", ["", "a: [b", "current-context: nowhere"])
def test_kubeconfig_that_is_none_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    assert_refused(run_controller(KUBECONFIG=str(path)), f"KUBECONFIG is '{path}'", "no access to a cluster")


def test_kubeconfig_that_is_a_directory_is_told_in_one_line(tmp_path: Path) -> None:
    assert_refused(run_controller(KUBECONFIG=str(tmp_path)), f"KUBECONFIG is '{tmp_path}'", "no access to a cluster")


def assert_refused(ended: subprocess.CompletedProcess[str], *told: str) -> None:
    (line,) = ended.stderr.splitlines()
    assert line.startswith("provisioner: ")
    for part in told:
        assert part in line
    assert ended.returncode == 2
    assert ended.stdout == ""
