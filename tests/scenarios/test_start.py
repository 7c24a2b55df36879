"""Starting, stopping, interruptions from outside: whatever is missing at first is waited for, with a word about it."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fakes.aks import CRDS, FakeAks
from fakes.azure import Answer, Delay
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.components import free_port
from fakes.cluster.interface import ControlPlane
from fakes.controller import ControllerProcess
from tests.claims import kaito_claim
from tests.conftest import PACE, SCALE
from tests.kube import CLAIMS, Kube, clear, condition, eventually, has_reason, is_true, uninstall
from tests.scenarios.on_azure import AGES, DELETE, PUT, pools, settings, statuses, wait_hit, wait_pool

NAME = "ws09f153898"
# kopf looks for a kind that it has missed every half minute, twice.
CRD_PATIENCE = 120.0


@pytest.fixture
async def bare_cluster(control_plane: ControlPlane) -> AsyncIterator[ControlPlane]:
    """A control plane that knows none of our kinds."""
    await asyncio.to_thread(uninstall, control_plane, *CRDS)
    yield control_plane
    await asyncio.to_thread(control_plane.apply, *CRDS)
    await clear(control_plane)


async def wait_logged(controller: ControllerProcess, text: str) -> None:
    async def log() -> list[str]:
        return controller.log_text().splitlines()

    await eventually(log, until=lambda lines: any(text in line for line in lines), what=f"log says {text!r}")


async def test_crds_are_installed_after_the_start(bare_cluster: ControlPlane, tmp_path: Path) -> None:
    async with (
        FakeAks(bare_cluster, azure=AzureSettings(scale=SCALE), crds=False) as aks,
        Kube(bare_cluster) as kube,
        ControllerProcess({**aks.environment(), **PACE}, log=tmp_path / "log") as controller,
    ):
        await wait_logged(controller, "the NodeClaim CRD is not installed")
        await asyncio.to_thread(bare_cluster.apply, *CRDS)
        await kube.create(CLAIMS, kaito_claim(NAME))

        await kube.wait_claim(NAME, is_true("Ready"), patience=CRD_PATIENCE)

        assert statuses(aks, PUT) == [201]


async def test_api_server_restarts_with_claims_in_flight(
    aks: FakeAks, kube: Kube, controller: ControllerProcess
) -> None:
    await kube.create(CLAIMS, kaito_claim("going"))
    await kube.wait_claim("going", is_true("Ready"))
    # Both are over while the API server is away, or just back.
    with settings(aks, delete_seconds=2.0 * SCALE):
        await kube.delete(CLAIMS, "going")
        await wait_pool(aks, "going", "Deleting")
    hangs = Delay(operation=PUT, pool="asked", seconds=2.0 * SCALE, after_effect=True)
    aks.azure.add_fault(hangs)
    for name in ("asked", "young"):
        await kube.create(CLAIMS, kaito_claim(name))
    await wait_hit(aks, hangs)

    await asyncio.to_thread(aks.cluster.restart_apiserver)

    for name in ("asked", "young"):
        await kube.wait_claim(name, is_true("Ready"))
    await kube.wait_gone(CLAIMS, "going")
    assert sorted(pools(aks)) == ["asked", "young"]
    assert set(statuses(aks, PUT)) <= {201, 412}
    assert statuses(aks, PUT).count(201) == 3
    assert controller.process.returncode is None


async def test_azure_does_not_answer_at_the_start(
    aks: FakeAks, kube: Kube, make_controller: Callable[..., ControllerProcess]
) -> None:
    outage = aks.azure.add_fault(Answer(status=500, times=None))
    async with make_controller() as controller:
        for name in (NAME, "impatient"):
            await kube.create(CLAIMS, kaito_claim(name))
            claim = await kube.wait_claim(name, has_reason("Launched", "AzureError"))
            assert condition(claim, "Launched")["status"] == "Unknown"
            assert condition(claim, "Launched")["message"]
        await kube.delete(CLAIMS, "impatient")
        await kube.wait_gone(CLAIMS, "impatient")

        aks.azure.faults.remove(outage)

        await kube.wait_claim(NAME, is_true("Ready"))
        assert statuses(aks, PUT) == [201]
        assert statuses(aks, DELETE) == []
        await assert_stops(controller)


async def test_sigterm_ends_a_controller_that_has_just_started(
    aks: FakeAks, kube: Kube, controller: ControllerProcess
) -> None:
    await wait_logged(controller, "controller started")
    await assert_stops(controller)


async def test_sigterm_ends_a_controller_whose_put_is_pending(
    aks: FakeAks, kube: Kube, controller: ControllerProcess
) -> None:
    hangs = Delay(operation=PUT, seconds=AGES, after_effect=True)
    aks.azure.add_fault(hangs)
    await kube.create(CLAIMS, kaito_claim(NAME))
    await wait_hit(aks, hangs)
    await assert_stops(controller)

    await controller.start()

    await kube.wait_claim(NAME, is_true("Ready"))
    assert set(statuses(aks, PUT)) <= {412}
    assert len(pools(aks)[NAME].instances) == 1


async def test_put_that_was_sent_has_its_answer_before_the_end(
    aks: FakeAks, kube: Kube, controller: ControllerProcess
) -> None:
    # Three real seconds.
    slow = Delay(operation=PUT, seconds=3.0 * SCALE, after_effect=True)
    aks.azure.add_fault(slow)
    await kube.create(CLAIMS, kaito_claim(NAME))
    await wait_hit(aks, slow)
    await assert_stops(controller)
    assert statuses(aks, PUT) == [201]

    await controller.start()

    await kube.wait_claim(NAME, is_true("Ready"))
    assert statuses(aks, PUT) == [201]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_second_signal_ends_a_controller_at_once_and_nothing_is_lost(
    aks: FakeAks, kube: Kube, controller: ControllerProcess, number: signal.Signals, code: int
) -> None:
    hangs = Delay(operation=PUT, seconds=AGES, after_effect=True)
    aks.azure.add_fault(hangs)
    await kube.create(CLAIMS, kaito_claim(NAME))
    await wait_hit(aks, hangs)
    controller.process.send_signal(number)
    await wait_logged(controller, "controller stopping")
    controller.process.send_signal(number)
    assert await controller.process.wait() == code

    await controller.start()

    await kube.wait_claim(NAME, is_true("Ready"))
    assert set(statuses(aks, PUT)) <= {412}


@pytest.mark.parametrize("away", ["Azure", "Kubernetes"])
async def test_sigterm_ends_a_controller_that_waits(
    aks: FakeAks, make_controller: Callable[..., ControllerProcess], tmp_path: Path, away: str
) -> None:
    elsewhere = tmp_path / "kubeconfig"
    elsewhere.write_text(aks.cluster.kubeconfig.read_text())
    if away == "Azure":
        aks.azure.add_fault(Answer(status=500, times=None))
        sign = "the AKS cluster cannot be read"
    else:
        elsewhere.write_text(elsewhere.read_text().replace(aks.cluster.url, f"https://127.0.0.1:{free_port()}"))
        sign = "the API server does not answer"
    async with make_controller(KUBECONFIG=str(elsewhere)) as controller:
        await wait_logged(controller, sign)
        await assert_stops(controller)


async def assert_stops(controller: ControllerProcess) -> None:
    # Killed by `stop` where it does not end by itself in time.
    assert await controller.stop() == 0
    entries = [json.loads(line) for line in controller.log_text().splitlines()]
    assert not [entry for entry in entries if entry["level"] == "error"]
