"""Tokens, deadlines and records of the session over TLS: the real SDK, and a fake only where ARM and Entra would be."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.azure import Answer, Delay, Disconnect
from provisioner import __version__
from provisioner.apis.failure import FailureClass
from provisioner.azure.agentpools import AgentPools
from provisioner.azure.errors import Withheld
from tests.scenarios.arm_bench import BODY, Bench, arm_bench, refused


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with arm_bench(tmp_path / "azure") as running:
        yield running


@pytest.fixture
async def pools(bench: Bench) -> AsyncIterator[AgentPools]:
    async with bench.session() as opened:
        yield AgentPools(opened)


async def hit_once(bench: Bench) -> None:
    """Wait until the one fault that was added has hit."""
    async with asyncio.timeout(20):
        while True:
            (fault,) = bench.azure.faults.listing()
            if fault["spent"]:
                break
            await asyncio.sleep(0.01)


async def test_many_calls_share_one_token(bench: Bench, pools: AgentPools) -> None:
    await asyncio.gather(*(pools.list() for _ in range(20)))
    assert bench.azure.calls.count("entra.token") == 1
    assert bench.azure.calls.count("agentPools.list", status=200) == 20


async def test_tokens_that_arm_refuses_are_replaced(bench: Bench, pools: AgentPools) -> None:
    for rounds in (1, 2):
        await asyncio.gather(*(pools.list() for _ in range(10)))
        bench.azure.entra.expire_tokens()
        await asyncio.gather(*(pools.list() for _ in range(10)))
        assert bench.azure.calls.count("entra.token") == 1 + rounds


async def test_a_refusal_that_a_new_token_does_not_cure_ends(bench: Bench, pools: AgentPools) -> None:
    body = {"error": {"code": "InvalidAuthenticationTokenTenant", "message": "wrong tenant"}}
    challenge = {"WWW-Authenticate": 'Bearer authorization_uri="https://login.windows.net/", error="invalid_token"'}
    bench.azure.add_fault(Answer(operation="agentPools.put", status=401, body=body, headers=challenge, times=None))
    error = await refused(pools.create("gpu1", BODY))
    assert (error.failure.kind, error.failure.code) == (FailureClass.AUTH, "InvalidAuthenticationTokenTenant")
    assert not error.outcome_unknown
    assert bench.azure.calls.count("agentPools.put") == 2


async def test_a_hiccup_of_entra_is_not_noticed(bench: Bench, pools: AgentPools) -> None:
    bench.azure.add_fault(Answer(operation="entra.token", status=503, body={"error": "temporarily_unavailable"}))
    await pools.list()
    assert bench.azure.calls.count("entra.token") == 2


async def test_entra_refusing_says_what_to_set_right(bench: Bench, pools: AgentPools) -> None:
    body = {"error": "invalid_client", "error_description": "AADSTS70021: No matching federated identity record found."}
    bench.azure.add_fault(Answer(operation="entra.token", status=401, body=body, times=None))
    error = await refused(pools.create("gpu1", BODY))
    assert error.failure.kind is FailureClass.AUTH
    assert error.failure.message.startswith("No token for the Azure identity: no federated credential")
    assert not error.outcome_unknown
    assert bench.azure.calls.count("agentPools.put") == 0
    assert bench.records[-1].error == "ClientAuthenticationError"


async def test_an_application_of_another_tenant_is_refused_in_entras_words(bench: Bench) -> None:
    wrong = replace(bench.credentials, client_id="00000000-0000-4000-8000-000000000bad")
    async with bench.session(credentials=wrong) as opened:
        error = await refused(AgentPools(opened).list())
    assert error.failure.kind is FailureClass.AUTH
    assert "AADSTS700016" in error.failure.message


async def test_a_token_file_that_is_not_mounted(bench: Bench) -> None:
    wrong = replace(bench.credentials, federated_token_file="/nonexistent/azure-identity-token")
    async with bench.session(credentials=wrong) as opened:
        error = await refused(AgentPools(opened).list())
    assert error.failure.kind is FailureClass.AUTH
    assert "/nonexistent/azure-identity-token" in error.failure.message


@pytest.mark.parametrize("missing", ["tenant_id", "client_id"])
async def test_incomplete_credentials_are_refused_at_the_start(bench: Bench, missing: str) -> None:
    with pytest.raises(ValueError, match=f"AZURE_{missing.upper()}"):
        async with bench.session(credentials=replace(bench.credentials, **{missing: ""})):
            pass


async def test_a_server_that_is_not_trusted_gets_no_token(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    async with bench.session() as opened:
        error = await refused(AgentPools(opened).create("gpu1", BODY))
    assert error.failure.kind is FailureClass.INTERNAL
    assert not error.outcome_unknown
    assert len(bench.azure.calls) == 0


async def test_every_call_is_recorded(bench: Bench, pools: AgentPools) -> None:
    await pools.list()
    await pools.create("gpu1", BODY)
    bench.azure.add_fault(Disconnect(operation="agentPools.delete", times=2))
    await refused(pools.delete("gpu1"))
    assert [(r.operation, r.method, r.status, r.error) for r in bench.records] == [
        ("agentpools.list", "GET", 200, ""),
        ("agentpools.create", "PUT", 201, ""),
        ("agentpools.delete", "DELETE", None, "ServiceRequestError"),
    ]
    calls = [call for call in bench.azure.calls if call.operation != "entra.token"]
    assert [record.client_request_id for record in bench.records] == [call.client_request_id for call in calls[:3]]
    assert all(record.correlation_id and record.request_id for record in bench.records[:2])
    assert [record.pool for record in bench.records] == ["", "gpu1", "gpu1"]
    assert all(0 < record.seconds < 10 for record in bench.records)
    assert all(call.user_agent.startswith(f"gpu-provisioner/{__version__} ") for call in calls)


async def test_nothing_secret_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = bench.azure.entra.federated_token_file.read_text()
    async with bench.session() as opened:
        pools = AgentPools(opened)
        await pools.create("gpu1", BODY)
        bench.azure.add_fault(Answer(operation="agentPools.list", status=403, body={"code": "Forbidden"}))
        await refused(pools.list())
    assert token not in caplog.text
    assert "Bearer" not in caplog.text
    assert [record for record in caplog.records if record.name.startswith(("azure", "msal"))] == []


async def test_a_session_works_on_after_a_call_was_cancelled(bench: Bench, pools: AgentPools) -> None:
    bench.azure.add_fault(Delay(operation="agentPools.list", seconds=6000))
    call = asyncio.create_task(pools.list())
    await hit_once(bench)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert bench.records[-1].error == "CancelledError"
    assert {pool.name for pool in await pools.list()} == {"systempool"}


async def test_a_closed_session_says_so(bench: Bench) -> None:
    opened = bench.session()
    async with opened:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        await AgentPools(opened).list()


async def test_managed_mode_takes_whatever_identity_the_environment_offers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bench.azure.environment().items():
        monkeypatch.setenv(name, value)
    managed = replace(bench.credentials, deployment_mode="Managed")
    assert not managed.is_workload_identity
    async with bench.session(credentials=managed) as opened:
        assert {pool.name for pool in await AgentPools(opened).list()} == {"systempool"}


async def test_whoever_may_not_act_any_more_sends_nothing(bench: Bench) -> None:
    may_act = True
    async with bench.session(may_act=lambda: may_act) as opened:
        pools = AgentPools(opened)
        await pools.create("gpu1", BODY)
        sent = len(bench.azure.calls)
        may_act = False

        errors = [await refused(call) for call in (pools.create("gpu2", BODY), pools.delete("gpu1"), pools.list())]

        assert {type(error) for error in errors} == {Withheld}
        assert not any(error.outcome_unknown for error in errors)
        assert [record.error for record in bench.records[-3:]] == ["Withheld"] * 3
        assert len(bench.azure.calls) == sent
        may_act = True
        assert {pool.name for pool in await pools.list()} == {"systempool", "gpu1"}


async def test_leadership_that_is_lost_while_entra_is_asked_for_a_token_is_noticed(bench: Bench) -> None:
    may_act = True
    bench.azure.add_fault(Delay(operation="entra.token", seconds=600.0))
    async with bench.session(may_act=lambda: may_act) as opened:
        asked = asyncio.create_task(refused(AgentPools(opened).create("gpu1", BODY)))
        await hit_once(bench)
        may_act = False

        assert isinstance(await asked, Withheld)
    assert bench.azure.calls.count("agentPools.put") == 0


async def test_leadership_that_is_lost_between_headers_and_body_is_noticed(bench: Bench) -> None:
    leave = iter([True])
    async with bench.session(may_act=lambda: next(leave, False)) as opened:
        await refused(AgentPools(opened).create("gpu1", BODY))

    assert bench.azure.calls.count("entra.token") == 1
    assert bench.azure.calls.count("agentPools.put") == 0
