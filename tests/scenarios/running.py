"""One AKS and one controller for all tests of a file: for files of many small claims that do not disturb each other."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fakes.aks import FakeAks
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.interface import ControlPlane
from fakes.controller import ControllerProcess
from tests.conftest import PACE, SCALE
from tests.kube import Kube, clear

_NO_SETTINGS: Mapping[str, str] = {}
_LOG_TAIL = 40_000


@dataclass(frozen=True, kw_only=True)
class Running:
    """What runs, and a client of each side."""

    aks: FakeAks
    kube: Kube
    controller: ControllerProcess


@asynccontextmanager
async def running(
    control_plane: ControlPlane,
    *,
    log: Path,
    prepare: Callable[[FakeAks, Kube], Awaitable[None]] | None = None,
    settings: Mapping[str, str] = _NO_SETTINGS,
    azure: AzureSettings | None = None,
) -> AsyncIterator[Running]:
    """Run a whole AKS and the controller, with settings by their environment names.

    `prepare` makes what the controller finds when it starts.
    """
    try:
        async with (
            FakeAks(control_plane, azure=azure or AzureSettings(scale=SCALE)) as aks,
            Kube(control_plane) as kube,
        ):
            if prepare is not None:
                await prepare(aks, kube)
            async with ControllerProcess({**aks.environment(), **PACE, **settings}, log=log) as controller:
                yield Running(aks=aks, kube=kube, controller=controller)
            # Shown where a test has failed.
            sys.stdout.write(controller.log_text()[-_LOG_TAIL:])
    finally:
        await clear(control_plane)
