"""The charts' files fit the program: its settings, its version, its CRDs. Helm itself is asked by tests/charts."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from provisioner import __version__
from provisioner.nodeclaim.run import LEASE_NAME
from provisioner.settings import ControllerSettings, Settings, source_of
from provisioner.workspace.run import LEASE_NAME as WORKSPACE_LEASE_NAME
from provisioner.workspace.settings import WorkspaceSettings

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ROOT / "charts"
KINDS: dict[str, type[ControllerSettings]] = {"gpu-provisioner": Settings, "workspace": WorkspaceSettings}
LEASES = {"gpu-provisioner": LEASE_NAME, "workspace": WORKSPACE_LEASE_NAME}
# What has a place of its own in the values: ports, logs, identity, election.
ELSEWHERE = set(ControllerSettings.model_fields) | {
    "tenant_id",
    "client_id",
    "federated_token_file",
    "deployment_mode",
}
AZURE = {
    "subscriptionId": "ARM_SUBSCRIPTION_ID",
    "resourceGroup": "ARM_RESOURCE_GROUP",
    "clusterName": "AZURE_CLUSTER_NAME",
    "cloud": "AZURE_CLOUD",
    "armEndpoint": "ARM_ENDPOINT",
    "armAudience": "ARM_AUDIENCE",
    "authorityHost": "AZURE_AUTHORITY_HOST",
    "pricingEndpoint": "PRICING_ENDPOINT",
    "requestShare": "AZURE_REQUEST_SHARE",
}


def read(chart: str, name: str) -> dict[str, Any]:
    """Return a YAML or JSON file of a chart."""
    loaded: dict[str, Any] = yaml.safe_load((CHARTS / chart / name).read_text())
    return loaded


def by_variable(section: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of each setting, by its environment variable."""
    azure = section.get("azure", {})
    own = {key: value for key, value in section.items() if key != "azure"}
    named = {re.sub(r"(?<!^)([A-Z])", r"_\1", key).upper(): value for key, value in own.items()}
    return named | {AZURE[key]: value for key, value in azure.items()}


def fields(chart: str) -> dict[str, FieldInfo]:
    """Return the settings that a section of the values is for, by their environment variable."""
    found = KINDS[chart].model_fields
    return {source_of(info).env[0]: info for name, info in found.items() if name not in ELSEWHERE}


@pytest.mark.parametrize("chart", KINDS)
def test_chart_and_program_have_one_version(chart: str) -> None:
    metadata = read(chart, "Chart.yaml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (metadata["version"], metadata["appVersion"], project["version"]) == (__version__,) * 3


@pytest.mark.parametrize("chart", KINDS)
def test_every_setting_has_its_value_with_the_same_default(chart: str) -> None:
    values = by_variable(read(chart, "values.yaml")["settings"])
    assert values.keys() == fields(chart).keys()
    for variable, info in fields(chart).items():
        # An image of the same registry, and a list by commas, are made by the template.
        if variable not in ("SERVING_IMAGE", "SERVING_IMAGE_PULL_SECRETS", "HF_ENDPOINT"):
            assert values[variable] == info.default, variable


@pytest.mark.parametrize("chart", KINDS)
def test_the_schema_has_the_limits_of_the_settings(chart: str) -> None:
    schema = read(chart, "values.schema.json")["properties"]["settings"]["properties"]
    flat = {key: value for key, value in schema.items() if key != "azure"}
    said = by_variable({**flat, "azure": schema.get("azure", {}).get("properties", {})})
    assert said.keys() == fields(chart).keys()
    for variable, info in fields(chart).items():
        limits = {type(each): each for each in info.metadata if isinstance(each, Ge | Le)}
        for kind, word in ((Ge, "minimum"), (Le, "maximum")):
            expected = getattr(limits.get(kind), kind.__name__.lower(), None)
            assert said[variable].get(word) == expected, f"{variable}: {word}"


@pytest.mark.parametrize("chart", KINDS)
def test_the_schema_knows_every_value_and_no_other(chart: str) -> None:
    schema = read(chart, "values.schema.json")
    # For Helm, when the chart is a part of another one; and of Azure/gpu-provisioner's, without effect.
    assert set(unlike(schema, read(chart, "values.yaml"))) <= {
        "/global",
        "/controller/outputPaths",
        "/controller/errorOutputPaths",
    }
    assert schema["additionalProperties"] is False


def unlike(schema: dict[str, Any], values: Any, path: str = "") -> Iterator[str]:
    """Return where closed objects of a schema and the default values have other keys."""
    if schema.get("additionalProperties") is not False or "properties" not in schema:
        return
    assert isinstance(values, dict), path
    for key in schema["properties"].keys() ^ values.keys():
        yield f"{path}/{key}"
    for key in schema["properties"].keys() & values.keys():
        yield from unlike(schema["properties"][key], values[key], f"{path}/{key}")


@pytest.mark.parametrize("chart", KINDS)
def test_every_value_is_explained(chart: str) -> None:
    # Kubernetes' own names explain themselves.
    settings = read(chart, "values.yaml")["settings"]
    text = (CHARTS / chart / "values.yaml").read_text()
    for key in (*settings, *settings.get("azure", ())):
        assert re.search(rf"#.*\n +{key}:", text), key


@pytest.mark.parametrize("chart", KINDS)
def test_crds_are_the_repositorys_own_files(chart: str) -> None:
    for path in (CHARTS / chart / "files" / "crds").iterdir():
        assert path.resolve() == ROOT / "crds" / path.name


@pytest.mark.parametrize("chart", KINDS)
def test_the_lease_that_may_be_held_is_the_controllers(chart: str) -> None:
    rules = read(chart, "files/rules.yaml")["namespace"]
    assert [rule["resourceNames"] for rule in rules if "resourceNames" in rule] == [[LEASES[chart]]]


def test_alerts_and_dashboard_can_be_read() -> None:
    files = CHARTS / "gpu-provisioner" / "files"
    assert [group["name"] for group in yaml.safe_load((files / "alerts.yaml").read_text())["groups"]]
    assert json.loads((files / "dashboard.json").read_text())["title"]
