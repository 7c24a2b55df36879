"""Run this Azure alone: `python -m fakes.azure`."""

import argparse
import asyncio
import contextlib
import shlex
import signal
import sys
import tempfile
from pathlib import Path

from fakes.azure.ids import ResourceIds
from fakes.azure.server import FakeAzure
from fakes.azure.settings import Settings


def _arguments() -> argparse.Namespace:
    names = ResourceIds()
    parser = argparse.ArgumentParser(
        prog="python -m fakes.azure",
        description="ARM and Entra for one AKS cluster on loopback. Prints the environment its clients need, then "
        "serves until it is stopped. The control API is under /fake/ on the same port.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 for any that is free")
    parser.add_argument(
        "--directory", type=Path, help="where the CA and the federated token are written; a private temporary one"
    )
    parser.add_argument("--scale", type=float, default=60.0, help="simulated seconds a real second")
    parser.add_argument("--cluster", default=names.cluster, help="name of the managed cluster")
    parser.add_argument("--subscription", default=names.subscription, help="subscription ID")
    parser.add_argument("--resource-group", default=names.resource_group, help="resource group of the cluster")
    parser.add_argument("--location", default=names.location, help="region")
    parser.add_argument("--kubernetes-version", default="1.34.2", help="version of the cluster")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace, *, directory: Path) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    ids = ResourceIds(
        cluster=arguments.cluster,
        subscription=arguments.subscription,
        resource_group=arguments.resource_group,
        location=arguments.location,
    )
    azure = FakeAzure(
        directory=directory,
        settings=Settings(scale=arguments.scale),
        ids=ids,
        port=arguments.port,
        kubernetes_version=arguments.kubernetes_version,
    )
    async with azure:
        for name, value in azure.environment().items():
            print(f"export {name}={shlex.quote(value)}")
        sys.stdout.flush()
        await stopped.wait()


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    arguments = _arguments()
    with contextlib.ExitStack() as stack:
        directory = arguments.directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fake-azure-")))
        asyncio.run(_serve(arguments, directory=directory))


if __name__ == "__main__":
    main()
