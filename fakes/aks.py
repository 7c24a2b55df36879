"""A whole AKS: Kubernetes control plane, ARM and Entra, and the nodes between them, in one place and one time."""

import asyncio
import secrets
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from fakes.azure import FakeAzure
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.interface import ControlPlane
from fakes.nodes import FakeNodes, NodeSettings, Runner

_ROOT: Final = Path(__file__).resolve().parent.parent
CRDS: Final = tuple(sorted((_ROOT / "crds").glob("*.yaml")))
DEVICE_PLUGIN: Final = _ROOT / "fakes" / "nodes" / "manifests" / "nvidia-device-plugin.yaml"


class FakeAks:
    """An AKS cluster on loopback; use as `async with`.

    The control plane is the caller's, started or not; one that was not is started and stopped here. `crds` and
    `device_plugin` may be left out to see what happens without them. `runner` runs the containers of the pods that it
    takes; all others are simulated.
    """

    def __init__(
        self,
        cluster: ControlPlane,
        *,
        azure: AzureSettings | None = None,
        nodes: NodeSettings | None = None,
        crds: bool = True,
        device_plugin: bool = True,
        runner: Runner | None = None,
    ) -> None:
        self.cluster = cluster
        self._azure_settings = azure or AzureSettings()
        self._node_settings = nodes or NodeSettings()
        self._runner = runner
        self._manifests = [*(CRDS if crds else ()), *([DEVICE_PLUGIN] if device_plugin else ())]
        self._stack = AsyncExitStack()
        self.azure: FakeAzure
        self.nodes: FakeNodes

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="fake-azure-"))
            if not self.cluster.is_started:
                stack.push_async_callback(asyncio.to_thread, self.cluster.stop)
                await asyncio.to_thread(self.cluster.start)
            if self._manifests:
                await asyncio.to_thread(self.cluster.apply, *self._manifests)
            self.azure = await stack.enter_async_context(
                FakeAzure(directory=Path(directory), settings=self._azure_settings)
            )
            self.nodes = await stack.enter_async_context(
                FakeNodes(
                    self.cluster.kubeconfig,
                    self.azure,
                    settings=self._node_settings,
                    clock=self.azure.clock,
                    runner=self._runner,
                )
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def pools(self) -> list[dict[str, Any]]:
        """Return all agent pools, the system pool too, as ARM would."""
        cluster = self.azure.cluster
        return [pool.resource(cluster.ids) for pool in cluster.pools.values()]

    def environment(self) -> dict[str, str]:
        """Return the variables by which `provisioner run` finds this cluster and this Azure."""
        return {**self.azure.environment(), "KUBECONFIG": str(self.cluster.kubeconfig)}


def claim_name() -> str:
    """Return a name for a claim in the shape that KAITO gives: `ws` and nine hexadecimal digits."""
    return f"ws{secrets.token_hex(5)[:9]}"
