"""What values come to in the controllers, and which are refused."""

from pathlib import Path
from typing import Any

import pytest

from provisioner.settings import ControllerSettings, Settings, load_as, source_of
from provisioner.workspace.settings import WorkspaceSettings
from tests.charts.helm import PROVISIONER, WORKSPACE, Helm, HelmFailed, merged
from tests.charts.values import CLIENT, LEAST, PEER, PEER_WHOLE, SUBSCRIPTION, TENANT

pytestmark = pytest.mark.real

KINDS: dict[str, type[ControllerSettings]] = {PROVISIONER: Settings, WORKSPACE: WorkspaceSettings}
LEAST_OF: dict[str, dict[str, Any]] = {PROVISIONER: LEAST, WORKSPACE: {}}
# The pod's own namespace and what the webhook of workload identity sets are not in the text of the Deployment.
LOOKED_UP = {"LEASE_NAMESPACE"}


def read(chart: str, variables: dict[str, str], *, folder: Path) -> dict[str, Any]:
    """Return the settings that the controller makes of its environment, beside a webhook."""
    token = folder / "token"
    token.write_text("")
    injected = {"AZURE_CLIENT_ID": CLIENT, "AZURE_TENANT_ID": TENANT, "AZURE_FEDERATED_TOKEN_FILE": str(token)}
    return load_as(KINDS[chart], flags={}, environment={**injected, **variables}).model_dump()


@pytest.mark.parametrize("chart", KINDS)
def test_every_variable_is_a_setting_of_the_controller(helm: Helm, chart: str) -> None:
    read = {name for info in KINDS[chart].model_fields.values() for name in source_of(info).env}

    names = {entry["name"] for entry in helm.template(chart, values=LEAST_OF[chart]).container["env"]}

    assert names - read == set()
    assert names >= LOOKED_UP


@pytest.mark.parametrize("chart", KINDS)
def test_controllers_run_by_their_defaults_but_for_ports_and_election(helm: Helm, chart: str, tmp_path: Path) -> None:
    variables = helm.template(chart, values=LEAST_OF[chart]).variables
    required = {name: variables[name] for name in variables if name.startswith("ARM_") or name == "AZURE_CLUSTER_NAME"}

    chosen, default = read(chart, variables, folder=tmp_path), read(chart, required, folder=tmp_path)

    changed = {name: value for name, value in chosen.items() if value != default[name]}
    assert changed == {"leader_election": True, "health_port": 8081, "metrics_port": 8080}


def test_every_value_arrives_in_the_provisioner(helm: Helm, tmp_path: Path) -> None:
    azure = {
        "subscriptionId": SUBSCRIPTION,
        "resourceGroup": "rg",
        "clusterName": "cluster",
        "cloud": "custom",
        "armEndpoint": "https://arm.example.com",
        "armAudience": "https://audience.example.com",
        "authorityHost": "https://login.example.com",
        "pricingEndpoint": "none",
        "requestShare": 0.25,
    }
    settings = {
        "reconcileWorkers": 7,
        "inventoryBusySeconds": 2.5,
        "inventoryIdleSeconds": 30,
        "garbageSeconds": 61,
        "quotaSeconds": 62,
        "capacityRetrySeconds": 63,
        "registrationTimeoutSeconds": 0,
        "launchTimeoutSeconds": 64,
        # Seven digits: a template that prints numbers as they come makes 1e+06 of it.
        "nodeImageCheckSeconds": 1000000,
        "replaceDrifted": True,
        "waitForGpus": False,
        "gpuTimeoutSeconds": 65,
        "nodeRepairSeconds": 66,
        "repairMissingGpus": True,
    }
    values = merged(
        LEAST,
        {
            "settings": {"azure": azure, **settings},
            "logLevel": "warning",
            "logEncoding": "console",
            "controller": {"healthProbe": {"port": 9001}, "metrics": {"port": 9002}},
        },
    )

    variables = helm.template(PROVISIONER, values=values).variables

    read_back = read(PROVISIONER, variables, folder=tmp_path)
    assert variables["NODE_IMAGE_CHECK_SECONDS"] == "1000000"
    expected = {
        "subscription_id": SUBSCRIPTION,
        "resource_group": "rg",
        "cluster_name": "cluster",
        "cloud": "custom",
        "arm_endpoint": "https://arm.example.com",
        "arm_audience": "https://audience.example.com",
        "authority_host": "https://login.example.com",
        "pricing_endpoint": "none",
        "request_share": 0.25,
        "workers": 7,
        "busy_interval": 2.5,
        "idle_interval": 30.0,
        "garbage_interval": 61.0,
        "quota_interval": 62.0,
        "capacity_retry": 63.0,
        "registration_timeout": 0.0,
        "launch_timeout": 64.0,
        "node_image_check": 1000000.0,
        "replace_drifted": True,
        "wait_for_gpus": False,
        "gpu_timeout": 65.0,
        "node_repair": 66.0,
        "repair_missing_gpus": True,
        "log_level": "warning",
        "log_format": "text",
        "health_port": 9001,
        "metrics_port": 9002,
        "leader_election": True,
    }
    assert {name: read_back[name] for name in expected} == expected


def test_every_value_arrives_in_the_workspace_controller(helm: Helm, tmp_path: Path) -> None:
    values = {
        "settings": {
            "servingImage": "registry.example.com/serving:2",
            "servingImagePullSecrets": ["one", "two"],
            "workspaceNodes": "brought",
            "hfEndpoint": "http://hub.models.svc:8080",
            "reconcileWorkers": 3,
            "resyncSeconds": 90,
        }
    }

    found = read(WORKSPACE, helm.template(WORKSPACE, values=values).variables, folder=tmp_path)

    assert found["serving_image"] == "registry.example.com/serving:2"
    assert found["serving_pull_secrets"] == "one,two"
    assert found["node_source"] == "brought"
    assert found["hub_endpoint"] == "http://hub.models.svc:8080"
    assert (found["workers"], found["resync"]) == (3, 90.0)


def test_pods_of_models_run_an_image_of_the_controllers_registry_and_release(helm: Helm) -> None:
    image = {"repository": "registry.example.com/team/gpu-provisioner", "tag": "0.9.1"}
    rendered = helm.template(WORKSPACE, values={"controller": {"image": image}})
    assert rendered.container["image"] == "registry.example.com/team/gpu-provisioner:0.9.1"
    assert rendered.variables["SERVING_IMAGE"] == "registry.example.com/team/gpu-provisioner-serving:0.9.1"


def test_variables_of_ones_own_win_over_settings_and_are_text(helm: Helm) -> None:
    secret = {"name": "AZURE_CLUSTER_NAME", "valueFrom": {"secretKeyRef": {"name": "azure", "key": "cluster"}}}
    env = [secret, {"name": "GARBAGE_SECONDS", "value": 90}, {"name": "REPLACE_DRIFTED", "value": True}]
    settings = {"azure": {"clusterName": ""}, "garbageSeconds": 300}

    rendered = helm.template(PROVISIONER, values=merged(LEAST, {"controller": {"env": env}, "settings": settings}))

    assert rendered.variables["GARBAGE_SECONDS"] == "90"
    assert rendered.variables["REPLACE_DRIFTED"] == "true"
    assert secret in rendered.container["env"]
    assert "AZURE_CLUSTER_NAME" not in rendered.variables


@pytest.mark.parametrize("values", [PEER, PEER_WHOLE], ids=["made by its script", "its values.yaml, filled in"])
def test_values_of_azures_gpu_provisioner_are_taken_as_they_are(
    helm: Helm, values: dict[str, Any], tmp_path: Path
) -> None:
    rendered = helm.template(PROVISIONER, values=values)

    found = read(PROVISIONER, rendered.variables, folder=tmp_path)
    assert (found["subscription_id"], found["resource_group"], found["cluster_name"]) == (
        SUBSCRIPTION,
        "models",
        "gpus",
    )
    assert rendered.one("Deployment")["spec"]["replicas"] == 1
    # Its image has another program in it.
    assert rendered.container["image"].startswith("gpu-provisioner:")
    account = next(found for found in rendered.all("ServiceAccount") if found["metadata"]["namespace"] == "system")
    assert account["metadata"]["annotations"] == {
        "azure.workload.identity/client-id": CLIENT,
        "azure.workload.identity/tenant-id": TENANT,
    }
    # A null of its own is not set, for it would hide what a webhook or a ConfigMap sets.
    assert all(entry.get("value", "") is not None for entry in rendered.container["env"])


@pytest.mark.parametrize(
    ("chart", "values", "words"),
    [
        (PROVISIONER, {"replica": 1}, ["replica"]),
        (PROVISIONER, {"controller": {"resource": {}}}, ["/controller", "resource"]),
        (PROVISIONER, {"settings": {"garbageSecond": 1}}, ["/settings", "garbageSecond"]),
        (PROVISIONER, {"settings": {"garbageSeconds": 0}}, ["/settings/garbageSeconds", "got 0, want 1"]),
        (PROVISIONER, {"settings": {"azure": {"location": "eastus"}}}, ["/settings/azure", "location"]),
        (PROVISIONER, {"settings": {"azure": {"armEndpoint": "http://arm"}}}, ["/settings/azure/armEndpoint"]),
        (PROVISIONER, {"deploymentMode": "workload"}, ["/deploymentMode", "'self-hosted', 'managed'"]),
        (PROVISIONER, {"devicePlugin": {"enabled": "yes"}}, ["/devicePlugin/enabled", "'auto', true, false"]),
        (PROVISIONER, {"controller": {"image": {"tag": 0.4}}}, ["/controller/image/tag", "got number, want string"]),
        (PROVISIONER, {"controller": {"metrics": {"port": 70000}}}, ["/controller/metrics/port"]),
        (PROVISIONER, {"controller": {"env": {"ARM_SUBSCRIPTION_ID": "x"}}}, ["/controller/env", "got object"]),
        (WORKSPACE, {"workloadIdentity": {"clientId": "x"}}, ["workloadIdentity"]),
        (WORKSPACE, {"settings": {"workspaceNodes": "all"}}, ["/settings/workspaceNodes", "'claims', 'brought'"]),
        (WORKSPACE, {"settings": {"hfEndpoint": "hub"}}, ["/settings/hfEndpoint"]),
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(
    helm: Helm, chart: str, values: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(HelmFailed) as refused:
        helm.template(chart, values=merged(LEAST_OF[chart], values))
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ["settings.azure.subscriptionId", "settings.azure.resourceGroup", "settings.azure.clusterName"]),
        (merged(LEAST, {"settings": {"azure": {"resourceGroup": ""}}}), ["Not set: settings.azure.resourceGroup."]),
        (
            merged(LEAST, {"workloadIdentity": {"clientId": ""}}),
            ["workloadIdentity.clientId", "deploymentMode=managed"],
        ),
        (
            merged(LEAST, {"controller": {"env": [{"name": "METRICS_PORT", "value": "1"}]}}),
            ["METRICS_PORT", "controller.metrics.port"],
        ),
        (
            merged(LEAST, {"controller": {"metrics": {"port": 0}}, "serviceMonitor": {"enabled": True}}),
            ["serviceMonitor.enabled", "controller.metrics.port"],
        ),
    ],
)
def test_what_the_controller_would_end_for_is_refused_before(
    helm: Helm, values: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(HelmFailed) as refused:
        helm.template(PROVISIONER, values=values)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    "values",
    [
        {"controller": {"envFrom": [{"secretRef": {"name": "azure"}}]}},
        merged(LEAST, {"workloadIdentity": {"clientId": ""}, "deploymentMode": "managed"}),
        merged(LEAST, {"workloadIdentity": {"clientId": ""}, "serviceAccount": {"create": False, "name": "made"}}),
        merged(
            LEAST,
            {
                "workloadIdentity": {"clientId": ""},
                "serviceAccount": {"annotations": {"azure.workload.identity/client-id": CLIENT}},
            },
        ),
    ],
    ids=["read from a Secret", "managed identity", "a service account of one's own", "annotated"],
)
def test_what_is_given_elsewhere_is_not_asked_for(helm: Helm, values: dict[str, Any]) -> None:
    assert helm.template(PROVISIONER, values=values).container["args"] == ["run"]


def test_managed_identity_is_named_to_the_controller_and_takes_no_webhook(helm: Helm, tmp_path: Path) -> None:
    rendered = helm.template(PROVISIONER, values=merged(LEAST, {"deploymentMode": "managed"}))
    assert rendered.variables["AZURE_CLIENT_ID"] == CLIENT
    assert "azure.workload.identity/use" not in rendered.pod["metadata"]["labels"]
    found = load_as(Settings, flags={}, environment=rendered.variables)
    assert (found.deployment_mode, found.client_id) == ("managed", CLIENT)
