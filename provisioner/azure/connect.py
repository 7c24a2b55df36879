"""From the settings to a session with the Azure that they name."""

from collections.abc import Callable

from provisioner.azure.budget import Budget, Wait
from provisioner.azure.cloud import cloud_for
from provisioner.azure.session import AzureSession, AzureTarget, CallRecord, Credentials
from provisioner.settings import SettingError, Settings


def connect(
    settings: Settings,
    *,
    on_call: Callable[[CallRecord], None] | None = None,
    on_wait: Callable[[str, Wait], None] | None = None,
    may_act: Callable[[], bool] | None = None,
) -> AzureSession:
    """Return a session that is yet to be entered. Raises SettingError where a cloud or an address is wrong."""
    try:
        cloud = cloud_for(
            settings.cloud,
            endpoint=settings.arm_endpoint or None,
            authority=settings.authority_host or None,
            audience=settings.arm_audience or None,
        )
    except ValueError as error:
        raise SettingError(f"AZURE_CLOUD, ARM_ENDPOINT or AZURE_AUTHORITY_HOST is wrong: {error}") from error
    return AzureSession(
        cloud=cloud,
        target=AzureTarget(
            subscription_id=settings.subscription_id,
            resource_group=settings.resource_group,
            cluster_name=settings.cluster_name,
        ),
        credentials=Credentials(
            tenant_id=settings.tenant_id,
            client_id=settings.client_id,
            federated_token_file=str(settings.federated_token_file or ""),
            deployment_mode=settings.deployment_mode,
        ),
        budget=Budget(share=settings.request_share),
        on_call=on_call,
        on_wait=on_wait,
        may_act=may_act,
    )
