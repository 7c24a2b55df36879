"""Every setting of the controllers: name, default, unit, and why.

A setting comes from a flag, else from the environment. The environment names are those of Azure/gpu-provisioner's
chart where it has one, so that its values keep working; the first of several names that is set counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

CloudName = Literal["public", "usgovernment", "china", "custom"]
DeploymentMode = Literal["self-hosted", "managed"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "text"]

_MAX_PORT: Final = 65535
_PUBLIC_PRICES: Final = "https://prices.azure.com"
_NO_PRICES: Final = "none"
_CLOUD_ALIASES: Final = {
    "azurecloud": "public",
    "azurepubliccloud": "public",
    "azureusgovernment": "usgovernment",
    "azureusgovernmentcloud": "usgovernment",
    "azurechinacloud": "china",
}


Kind = TypeVar("Kind", bound=BaseModel)


class SettingError(Exception):
    """A setting is missing or wrong; the text is one line for the person who set it."""


@dataclass(frozen=True)
class Source:
    """Where a field's value comes from."""

    env: tuple[str, ...]
    help: str


def setting(default: Any, *env: str, help: str, **constraints: Any) -> Any:  # noqa: A002
    """Declare a setting with the environment variables that it is read from, the first of them that is set."""
    return Field(default, json_schema_extra={"env": list(env), "help": help}, validate_default=True, **constraints)


class ControllerSettings(BaseModel):
    """What every controller of ours has: its cluster, its ports, its log, and whether it shares the work."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kubeconfig: str = setting(
        "", "KUBECONFIG", help="kubeconfig of the cluster; default: the pod's service account, else ~/.kube/config"
    )
    leader_election: bool = setting(
        False,
        "LEADER_ELECTION",
        help="act only while holding the Lease, for several instances side by side",
    )
    lease_namespace: str = setting(
        "default",
        "LEASE_NAMESPACE",
        "POD_NAMESPACE",
        help="namespace of the Lease",
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    )
    health_port: int | None = setting(
        None, "HEALTH_PROBE_PORT", help="serve /healthz and /readyz on this port; default: no port", ge=0, le=_MAX_PORT
    )
    metrics_port: int | None = setting(
        None, "METRICS_PORT", help="serve /metrics on this port; default: no port", ge=0, le=_MAX_PORT
    )
    bind_address: str = setting("0.0.0.0", "BIND_ADDRESS", help="address that those ports listen on")  # noqa: S104
    log_level: LogLevel = setting("info", "LOG_LEVEL", help="debug, info, warning or error")
    log_format: LogFormat = setting("json", "LOG_FORMAT", help="json or text")


class Settings(ControllerSettings):
    """The validated settings of `provisioner run`. Durations are in seconds."""

    subscription_id: str = setting(
        "", "ARM_SUBSCRIPTION_ID", "AZURE_SUBSCRIPTION_ID", help="subscription of the AKS cluster"
    )
    resource_group: str = setting(
        "", "ARM_RESOURCE_GROUP", "AZURE_RESOURCE_GROUP", help="resource group of the AKS cluster (not the MC_ one)"
    )
    cluster_name: str = setting("", "AZURE_CLUSTER_NAME", help="name of the AKS cluster")
    cloud: CloudName = setting("public", "AZURE_CLOUD", help="public, usgovernment, china or custom")
    arm_endpoint: str = setting("", "ARM_ENDPOINT", help="https address of Resource Manager; cloud custom only")
    authority_host: str = setting("", "AZURE_AUTHORITY_HOST", help="https address of Entra; default: the cloud's own")
    arm_audience: str = setting("", "ARM_AUDIENCE", help="audience of the token; default: the cloud's own")
    tenant_id: str = setting("", "AZURE_TENANT_ID", "ARM_TENANT_ID", help="Entra tenant of the identity")
    client_id: str = setting("", "AZURE_CLIENT_ID", "ARM_CLIENT_ID", help="client ID of the identity")
    federated_token_file: Path | None = setting(
        None, "AZURE_FEDERATED_TOKEN_FILE", help="service account token that workload identity exchanges"
    )
    deployment_mode: DeploymentMode = setting(
        "self-hosted", "DEPLOYMENT_MODE", help="self-hosted (workload identity) or managed (managed identity)"
    )

    workers: int = setting(
        100, "RECONCILE_WORKERS", help="claims reconciled side by side; each may hold one ARM request", ge=1, le=1000
    )
    busy_interval: float = setting(
        10.0,
        "INVENTORY_BUSY_SECONDS",
        help="pace of the one LIST of agent pools while something is in flight; Azure's budget is 1 a second",
        ge=1.0,
        le=300.0,
    )
    idle_interval: float = setting(
        60.0, "INVENTORY_IDLE_SECONDS", help="pace of that LIST while nothing is in flight", ge=1.0, le=3600.0
    )
    request_share: float = setting(
        # A GPU whose DELETE waits costs more than whatever else in the subscription waits for: most of the limits, but
        # not all of them.
        0.8,
        "AZURE_REQUEST_SHARE",
        help="part of Azure's request limits that is used here; all controllers of a subscription share them",
        ge=0.05,
        le=100.0,
    )
    garbage_interval: float = setting(
        120.0,
        "GARBAGE_SECONDS",
        help="pace of looking for pools without claim and claims without pool",
        ge=1.0,
        le=3600.0,
    )
    quota_interval: float = setting(
        60.0,
        "QUOTA_SECONDS",
        help="pace of reading the region's vCPU usages while claims are launched or wait for quota",
        ge=1.0,
        le=3600.0,
    )
    capacity_retry: float = setting(
        3600.0,
        "CAPACITY_RETRY_SECONDS",
        help="how long a size is left alone that Azure had no capacity for; other sizes are asked for meanwhile",
        ge=1.0,
        le=86400.0,
    )
    registration_timeout: float = setting(
        900.0,
        "REGISTRATION_TIMEOUT_SECONDS",
        help="how long after Azure's end of work a node may take to register until claim and pool are deleted; 0: ever",
        ge=0.0,
        le=86400.0,
    )
    launch_timeout: float = setting(
        300.0,
        "LAUNCH_TIMEOUT_SECONDS",
        help="how long a claim may wait for a node class that is missing or not ready until it is deleted; 0: ever",
        ge=0.0,
        le=86400.0,
    )
    node_image_check: float = setting(
        86400.0,
        "NODE_IMAGE_CHECK_SECONDS",
        help="how long what Azure says about the newest node image of a kind is good for, in seconds; 0: never asked",
        ge=0.0,
        le=2592000.0,
    )
    replace_drifted: bool = setting(
        False,
        "REPLACE_DRIFTED",
        help="delete claims whose node has drifted, one at a time, for their author to write them anew",
    )
    gpu_timeout: float = setting(
        600.0,
        "GPU_TIMEOUT_SECONDS",
        help="how long a Ready node may lack GPUs until the claim names what is wrong with them; 0: ever",
        ge=0.0,
        le=86400.0,
    )
    node_repair: float = setting(
        600.0,
        "NODE_REPAIR_SECONDS",
        help="how long a node may be not Ready until claim and pool are deleted; 0: no unhealthy node is replaced",
        ge=0.0,
        le=86400.0,
    )
    repair_missing_gpus: bool = setting(
        # A device plugin that is not installed looks the same, and no new VM mends that.
        False,
        "REPAIR_MISSING_GPUS",
        help="delete claim and pool too where a node still lacks GPUs after GPU_TIMEOUT_SECONDS",
    )
    pricing_endpoint: str = setting(
        "",
        "PRICING_ENDPOINT",
        help=f"https address of the price list, or none; default: {_PUBLIC_PRICES} in the public cloud, else none",
    )
    wait_for_gpus: bool = setting(
        True, "WAIT_FOR_GPUS", help="hold a claim's Ready until the Node offers the GPUs that its VM size has"
    )

    @field_validator("cloud", mode="before")
    @classmethod
    def _cloud(cls, value: object) -> object:
        # As the Azure SDKs and other charts name them.
        return _CLOUD_ALIASES.get(str(value).lower(), str(value).lower())

    @field_validator("subscription_id", "resource_group", "cluster_name", mode="after")
    @classmethod
    def _required(cls, value: str) -> str:
        if not value:
            raise ValueError("is missing")
        if "/" in value:
            raise ValueError("must be a name or ID, without slashes")
        return value

    @field_validator("pricing_endpoint")
    @classmethod
    def _prices(cls, value: str) -> str:
        return _NO_PRICES if value.lower() == _NO_PRICES else cls._https(value)

    @property
    def price_list(self) -> str:
        """Return where prices are read, empty where they are not."""
        if self.pricing_endpoint == _NO_PRICES:
            return ""
        return self.pricing_endpoint or (_PUBLIC_PRICES if self.cloud == "public" else "")

    @field_validator("arm_endpoint", "authority_host")
    @classmethod
    def _https(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme != "https" or not parts.hostname):
            raise ValueError("must be an https:// address")
        if "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("must be scheme, host and port alone")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.cloud == "custom" and not self.arm_endpoint:
            raise ValueError("ARM_ENDPOINT is missing: cloud custom needs the address of Resource Manager")
        if self.cloud != "custom" and self.arm_endpoint:
            raise ValueError(f"ARM_ENDPOINT is for AZURE_CLOUD=custom only; AZURE_CLOUD is {self.cloud}")
        if self.cloud != "custom" and self.arm_audience:
            raise ValueError(f"ARM_AUDIENCE is for AZURE_CLOUD=custom only; AZURE_CLOUD is {self.cloud}")
        if self.deployment_mode == "self-hosted":
            for name in ("tenant_id", "client_id", "federated_token_file"):
                if not getattr(self, name):
                    env = source_of(type(self).model_fields[name]).env[0]
                    raise ValueError(
                        f"{env} is missing: workload identity needs it; DEPLOYMENT_MODE=managed uses a managed identity"
                    )
            if self.federated_token_file and not self.federated_token_file.is_file():
                raise ValueError(f"AZURE_FEDERATED_TOKEN_FILE: there is no file {str(self.federated_token_file)!r}")
        return self


def source_of(info: FieldInfo) -> Source:
    """Return where the field's value comes from and what it is for."""
    extra = info.json_schema_extra
    if not isinstance(extra, dict):
        raise TypeError("every setting is declared by setting()")
    env = extra["env"]
    return Source(env=tuple(str(name) for name in env) if isinstance(env, list) else (), help=str(extra["help"]))


def flag_of(name: str) -> str:
    """Return the flag that sets the field."""
    return "--" + name.replace("_", "-")


def load(*, flags: Mapping[str, str | None], environment: Mapping[str, str]) -> Settings:
    """Read the settings of `provisioner run`; see `load_as`."""
    return load_as(Settings, flags=flags, environment=environment)


def load_as(kind: type[Kind], *, flags: Mapping[str, str | None], environment: Mapping[str, str]) -> Kind:
    """Read settings of that kind. Raises SettingError naming the setting, what it was and what it may be."""
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    for name, info in kind.model_fields.items():
        flag = flags.get(name)
        if flag is not None:
            values[name], given[name] = flag, flag_of(name)
            continue
        for variable in source_of(info).env:
            if environment.get(variable, "").strip():
                values[name], given[name] = environment[variable].strip(), variable
                break
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SettingError(_explain(error, kind=kind, values=values, given=given)) from None


def _explain(
    error: ValidationError, *, kind: type[BaseModel], values: Mapping[str, Any], given: Mapping[str, str]
) -> str:
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    name = str(first["loc"][0])
    source = source_of(kind.model_fields[name])
    label = given.get(name) or source.env[0]
    if message == "is missing":
        return f"{label} is missing: {source.help} (or {flag_of(name)})"
    # What stands before an `@` may be a password, and the text goes to the log.
    shown = "not shown, as it has an @" if "@" in str(values.get(name)) else repr(values.get(name))
    return f"{label} is {shown}: {message[0].lower()}{message[1:]} ({source.help})"
