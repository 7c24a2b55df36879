"""A session to a fake Azure over TLS, for the tests of the Azure gateway."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pytest

from fakes.azure import FakeAzure, Settings
from provisioner.azure.budget import Budget
from provisioner.azure.cloud import cloud_for
from provisioner.azure.errors import ArmFailure
from provisioner.azure.session import AzureSession, AzureTarget, CallRecord, Credentials

BODY: Final = {
    "properties": {
        "count": 1,
        "vmSize": "Standard_NC24ads_A100_v4",
        "mode": "User",
        "osType": "Linux",
        "tags": {"owner": "test"},
    }
}


@dataclass
class Bench:
    """An Azure, a session to it, and the record of its calls."""

    azure: FakeAzure
    target: AzureTarget
    credentials: Credentials
    records: list[CallRecord]

    def session(
        self,
        target: AzureTarget | None = None,
        credentials: Credentials | None = None,
        may_act: Callable[[], bool] | None = None,
    ) -> AzureSession:
        return AzureSession(
            target or self.target,
            cloud=cloud_for("custom", endpoint=self.azure.endpoint, authority=f"{self.azure.endpoint}/"),
            credentials=credentials or self.credentials,
            on_call=self.records.append,
            # This Azure's time flies, and with it its limits.
            budget=Budget(share=self.azure.settings.scale),
            may_act=may_act,
        )


@asynccontextmanager
async def arm_bench(directory: Path) -> AsyncIterator[Bench]:
    """Run an Azure that this process trusts."""
    async with FakeAzure(directory=directory, settings=Settings(scale=600)) as azure:
        environment = azure.environment()
        with patch.dict(os.environ, SSL_CERT_FILE=environment["SSL_CERT_FILE"], NO_PROXY="localhost"):
            yield Bench(
                azure=azure,
                target=AzureTarget(
                    subscription_id=environment["ARM_SUBSCRIPTION_ID"],
                    resource_group=environment["ARM_RESOURCE_GROUP"],
                    cluster_name=environment["AZURE_CLUSTER_NAME"],
                ),
                credentials=Credentials(
                    tenant_id=environment["AZURE_TENANT_ID"],
                    client_id=environment["AZURE_CLIENT_ID"],
                    federated_token_file=environment["AZURE_FEDERATED_TOKEN_FILE"],
                ),
                records=[],
            )


async def refused(call: Any) -> ArmFailure:
    """Return the failure that a call ends in."""
    with pytest.raises(ArmFailure) as caught:
        await call
    return caught.value
