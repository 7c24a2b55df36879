"""Settings come from flags, else from the peer's environment names; what is wrong is told in one line."""

from pathlib import Path

import pytest

from provisioner.settings import SettingError, Settings, flag_of, load, source_of

MANAGED = {
    "ARM_SUBSCRIPTION_ID": "0b1f6471-1bf0-4dda-aec3-cb9272f09590",
    "ARM_RESOURCE_GROUP": "rg",
    "AZURE_CLUSTER_NAME": "aks",
    "DEPLOYMENT_MODE": "managed",
}


def read(**environment: str) -> Settings:
    return load(flags={}, environment={**MANAGED, **environment})


def told(environment: dict[str, str], **flags: str) -> str:
    with pytest.raises(SettingError) as refused:
        load(flags=flags, environment=environment)
    text = str(refused.value)
    assert "\n" not in text
    return text


def test_cluster_and_managed_identity_are_enough() -> None:
    settings = read()
    assert (settings.resource_group, settings.cluster_name, settings.cloud) == ("rg", "aks", "public")
    assert settings.busy_interval <= settings.idle_interval
    assert settings.wait_for_gpus
    assert (settings.registration_timeout, settings.launch_timeout) == (900, 300)
    assert (settings.node_repair, settings.gpu_timeout, settings.repair_missing_gpus) == (600, 600, False)
    assert (settings.health_port, settings.metrics_port) == (None, None)
    assert (settings.log_level, settings.log_format) == ("info", "json")


def test_values_of_the_peers_chart_keep_working(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("")
    settings = load(
        flags={},
        environment={
            "ARM_SUBSCRIPTION_ID": "s",
            "ARM_RESOURCE_GROUP": "rg",
            "AZURE_CLUSTER_NAME": "aks",
            "AZURE_TENANT_ID": "t",
            "AZURE_CLIENT_ID": "c",
            "AZURE_FEDERATED_TOKEN_FILE": str(token),
            "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
            "DEPLOYMENT_MODE": "self-hosted",
            "HEALTH_PROBE_PORT": "8081",
            "METRICS_PORT": "8080",
            "LOG_LEVEL": "debug",
            # What it sets and nobody needs.
            "LOCATION": "eastus",
            "LEADER_ELECT": "false",
            "AZURE_NODE_RESOURCE_GROUP": "MC_rg",
            "KUBERNETES_MIN_VERSION": "1.20",
        },
    )
    assert (settings.subscription_id, settings.tenant_id, settings.client_id) == ("s", "t", "c")
    assert settings.federated_token_file == token
    assert settings.authority_host == "https://login.microsoftonline.com"
    assert (settings.health_port, settings.metrics_port, settings.log_level) == (8081, 8080, "debug")


# Where a value comes from


def test_flag_wins_over_the_environment() -> None:
    settings = load(
        flags={"cluster_name": "flagged", "workers": None}, environment={**MANAGED, "RECONCILE_WORKERS": "7"}
    )
    assert (settings.cluster_name, settings.workers) == ("flagged", 7)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ARM_SUBSCRIPTION_ID": "arm", "AZURE_SUBSCRIPTION_ID": "azure"}, "arm"),
        ({"AZURE_SUBSCRIPTION_ID": "azure"}, "azure"),
        ({"ARM_SUBSCRIPTION_ID": "", "AZURE_SUBSCRIPTION_ID": "azure"}, "azure"),
        ({"ARM_SUBSCRIPTION_ID": " ", "AZURE_SUBSCRIPTION_ID": " azure\n"}, "azure"),
    ],
)
def test_first_name_that_is_set_counts(environment: dict[str, str], expected: str) -> None:
    others = {key: value for key, value in MANAGED.items() if key != "ARM_SUBSCRIPTION_ID"}
    assert load(flags={}, environment={**others, **environment}).subscription_id == expected


@pytest.mark.parametrize(
    ("written", "read_as"), [("true", True), ("1", True), ("yes", True), ("False", False), ("0", False), ("off", False)]
)
def test_switch_is_read_as_people_write_it(written: str, read_as: bool) -> None:
    assert read(WAIT_FOR_GPUS=written).wait_for_gpus is read_as


def test_every_setting_has_a_flag_a_name_of_its_own_and_a_help() -> None:
    sources = {name: source_of(info) for name, info in Settings.model_fields.items()}
    variables = [variable for source in sources.values() for variable in source.env]
    assert len(variables) == len(set(variables))
    assert len({flag_of(name) for name in sources}) == len(sources)
    assert all(source.env and source.help for source in sources.values())
    assert flag_of("subscription_id") == "--subscription-id"


# What is wrong


@pytest.mark.parametrize(
    ("name", "value", "may_be"),
    [
        ("AZURE_CLOUD", "mars", "'public', 'usgovernment', 'china' or 'custom'"),
        ("DEPLOYMENT_MODE", "cloud", "'self-hosted' or 'managed'"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("LOG_FORMAT", "xml", "'json' or 'text'"),
        ("RECONCILE_WORKERS", "0", "greater than or equal to 1"),
        ("RECONCILE_WORKERS", "1001", "less than or equal to 1000"),
        ("RECONCILE_WORKERS", "many", "a valid integer"),
        ("INVENTORY_BUSY_SECONDS", "0.9", "greater than or equal to 1"),
        ("INVENTORY_BUSY_SECONDS", "301", "less than or equal to 300"),
        ("INVENTORY_BUSY_SECONDS", "10s", "a valid number"),
        ("INVENTORY_IDLE_SECONDS", "nan", "less than or equal to 3600"),
        ("INVENTORY_IDLE_SECONDS", "inf", "less than or equal to 3600"),
        ("GARBAGE_SECONDS", "-1", "greater than or equal to 1"),
        ("WAIT_FOR_GPUS", "perhaps", "a valid boolean"),
        ("HEALTH_PROBE_PORT", "65536", "less than or equal to 65535"),
        ("METRICS_PORT", "-1", "greater than or equal to 0"),
        ("METRICS_PORT", "http", "a valid integer"),
        ("ARM_RESOURCE_GROUP", "a/../b", "a name or ID, without slashes"),
        ("ARM_SUBSCRIPTION_ID", "/subscriptions/x", "a name or ID, without slashes"),
        ("AZURE_AUTHORITY_HOST", "http://login.example.com", "an https:// address"),
        ("AZURE_AUTHORITY_HOST", "login.example.com", "an https:// address"),
        ("AZURE_AUTHORITY_HOST", "https:///tenant", "an https:// address"),
        ("AZURE_AUTHORITY_HOST", "https://login.example.com/tenant", "scheme, host and port alone"),
        ("ARM_ENDPOINT", "ftp://arm", "an https:// address"),
        ("ARM_ENDPOINT", "https://arm.example.com/?x", "scheme, host and port alone"),
    ],
)
def test_bad_value_is_told_with_its_name_and_what_it_may_be(name: str, value: str, may_be: str) -> None:
    text = told({**MANAGED, name: value})
    assert text.startswith(f"{name} is {value!r}: ")
    assert may_be in text


def test_bad_value_of_a_flag_is_told_by_the_flag() -> None:
    assert told(MANAGED, workers="0").startswith("--workers is '0': input should be ")


@pytest.mark.parametrize("name", ["ARM_SUBSCRIPTION_ID", "ARM_RESOURCE_GROUP", "AZURE_CLUSTER_NAME"])
def test_cluster_has_to_be_named_in_full(name: str) -> None:
    text = told({key: value for key, value in MANAGED.items() if key != name})
    assert text.startswith(f"{name} is missing: ")
    assert "(or --" in text


@pytest.mark.parametrize("name", ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"])
def test_workload_identity_needs_all_of_its_parts(name: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("")
    complete = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_FEDERATED_TOKEN_FILE": str(token)}
    given = {key: value for key, value in complete.items() if key != name}
    assert told({**MANAGED, "DEPLOYMENT_MODE": "", **given}) == (
        f"{name} is missing: workload identity needs it; DEPLOYMENT_MODE=managed uses a managed identity"
    )


@pytest.mark.parametrize("missing", ["/no/such/token", "/no/such\ntoken", "/"])
def test_token_file_has_to_be_there(missing: str) -> None:
    given = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_FEDERATED_TOKEN_FILE": missing}
    text = told({**MANAGED, "DEPLOYMENT_MODE": "self-hosted", **given})
    assert text == f"AZURE_FEDERATED_TOKEN_FILE: there is no file {missing!r}"


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        (
            {"AZURE_CLOUD": "custom"},
            "ARM_ENDPOINT is missing: cloud custom needs the address of Resource Manager",
        ),
        (
            {"ARM_ENDPOINT": "https://arm.example.com"},
            "ARM_ENDPOINT is for AZURE_CLOUD=custom only; AZURE_CLOUD is public",
        ),
        (
            {"AZURE_CLOUD": "china", "ARM_AUDIENCE": "https://arm.example.com"},
            "ARM_AUDIENCE is for AZURE_CLOUD=custom only; AZURE_CLOUD is china",
        ),
    ],
)
def test_address_of_azure_goes_with_the_custom_cloud_and_with_no_other(environment: dict[str, str], text: str) -> None:
    assert told({**MANAGED, **environment}) == text


def test_custom_cloud_takes_an_audience_that_is_no_address() -> None:
    settings = read(AZURE_CLOUD="custom", ARM_ENDPOINT="https://arm.example.com:443/", ARM_AUDIENCE="urn:stack:1")
    assert (settings.arm_endpoint, settings.arm_audience) == ("https://arm.example.com:443", "urn:stack:1")


def test_password_in_an_address_is_not_told() -> None:
    text = told({**MANAGED, "AZURE_AUTHORITY_HOST": "https://me:secret@login.example.com"})
    assert "secret" not in text
    assert text.startswith("AZURE_AUTHORITY_HOST is not shown, as it has an @: must be scheme, host and port alone")
