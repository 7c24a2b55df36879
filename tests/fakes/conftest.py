"""An Azure on loopback, and the real SDK clients that talk to it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from azure.identity.aio import WorkloadIdentityCredential
from azure.mgmt.containerservice.aio import ContainerServiceClient

from fakes.azure import FakeAzure, Settings
from tests.fakes.sdk import Client


@pytest.fixture
async def azure(tmp_path: Path) -> AsyncIterator[FakeAzure]:
    async with FakeAzure(directory=tmp_path / "azure", settings=Settings(scale=3000)) as azure:
        yield azure


@pytest.fixture
async def credential(azure: FakeAzure) -> AsyncIterator[Any]:
    environment = azure.environment()
    async with WorkloadIdentityCredential(
        tenant_id=environment["AZURE_TENANT_ID"],
        client_id=environment["AZURE_CLIENT_ID"],
        token_file_path=environment["AZURE_FEDERATED_TOKEN_FILE"],
        authority=environment["AZURE_AUTHORITY_HOST"],
        connection_verify=environment["SSL_CERT_FILE"],
        retry_total=0,
    ) as credential:
        yield credential


@pytest.fixture
async def client(azure: FakeAzure, credential: Any) -> AsyncIterator[Client]:
    async with ContainerServiceClient(
        credential,
        azure.ids.subscription,
        base_url=azure.endpoint,
        connection_verify=str(azure.ca_file),
        polling_interval=0.01,
        retry_total=0,
        user_agent="test/1",
    ) as client:
        yield client
