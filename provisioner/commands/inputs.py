"""The settings of the commands: those of the controllers, by the same flags and variables, as far as needed."""

import argparse
from collections.abc import Mapping
from typing import Final

from provisioner.settings import ControllerSettings, Settings, load, load_as, source_of
from provisioner.workspace.settings import WorkspaceSettings

KUBERNETES: Final = ("kubeconfig",)
# The cloud decides whether there is a public price list.
STATUS: Final = (*KUBERNETES, "cloud", "arm_endpoint", "pricing_endpoint")
AZURE: Final = (
    "subscription_id",
    "resource_group",
    "cluster_name",
    "cloud",
    "arm_endpoint",
    "authority_host",
    "arm_audience",
    "tenant_id",
    "client_id",
    "federated_token_file",
    "deployment_mode",
    "pricing_endpoint",
)
PLAN: Final = (*AZURE, *KUBERNETES)
# Of `provisioner workspace`.
HUB: Final = ("hub_endpoint",)

# What has to be there for `run`, and is not asked for where Azure is not either.
_NO_AZURE: Final = {"subscription_id": "-", "resource_group": "-", "cluster_name": "-", "deployment_mode": "managed"}


def azure_settings(options: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Return the settings of a command that asks Azure. Raises SettingError."""
    return load(flags=_flags(options, PLAN), environment=_only(environment, PLAN))


def kubernetes_settings(options: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Return the settings of a command that asks Kubernetes alone; those of Azure are placeholders.

    Raises SettingError.
    """
    return load(flags={**_NO_AZURE, **_flags(options, STATUS)}, environment=_only(environment, STATUS))


def hub_address(options: argparse.Namespace, environment: Mapping[str, str]) -> str:
    """Return where models are looked up, empty where they are not. Raises SettingError."""
    if not options.lookup:
        return ""
    variables = _only(environment, HUB, kind=WorkspaceSettings)
    return load_as(WorkspaceSettings, flags=_flags(options, HUB), environment=variables).hub


def _flags(options: argparse.Namespace, names: tuple[str, ...]) -> dict[str, str | None]:
    return {name: getattr(options, name, None) for name in names}


def _only(
    environment: Mapping[str, str], names: tuple[str, ...], *, kind: type[ControllerSettings] = Settings
) -> dict[str, str]:
    """Return the variables of those settings: a wrong one of the controller's must not keep a person from a table."""
    wanted = {variable for name in names for variable in source_of(kind.model_fields[name]).env}
    return {key: value for key, value in environment.items() if key in wanted}
