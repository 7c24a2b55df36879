"""Run this Azure alone: `python -m fakes.azure`."""

import argparse
import asyncio
import contextlib
import json
import shlex
import signal
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from fakes.azure.ids import ResourceIds
from fakes.azure.server import FakeAzure
from fakes.azure.settings import Settings

_CONTROL: Final = """\
control API, JSON in and out, no token:
  GET    /fake/settings              all settings
  PATCH  /fake/settings              change those that are named; a mapping is replaced as a whole
  PUT    /fake/settings              the same, and all others back to their defaults
  GET    /fake/pools                 the agent pools; /fake/machines their VMs
  DELETE /fake/machines/NAME         take a VM away, as an eviction does
  GET    /fake/cluster               provisioning_state and power_state; PUT changes them
  POST   /fake/faults                let calls or operations fail; GET lists, DELETE clears, DELETE /ID removes
  GET    /fake/calls                 every call and counts; POST /fake/calls/reset forgets them
  POST   /fake/throttling/reset      fill all token buckets
  POST   /fake/tokens/expire         let access tokens expire; /fake/tokens/rotate renews the federated one

for instance, let the region run out of a size, and the family's quota shrink:
  curl --cacert DIRECTORY/ca.pem -X PATCH https://localhost:PORT/fake/settings \\
    -d '{"capacity": {"Standard_NC24ads_A100_v4": 0}, "quota": {"StandardNCADSA100v4Family": 24}}'

retail prices, no token: https://localhost:PORT/api/retail/prices

settings, with their defaults:
"""


def _help_on_settings() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        text = f"{name} = {json.dumps(default)}: {field.description}"
        yield textwrap.fill(text, width=100, initial_indent="  ", subsequent_indent="      ")


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or name not in Settings.model_fields:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=JSON of a setting")
    try:
        return name, json.loads(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value!r} is no JSON: {error}") from None


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults after each argument, the epilog as it is."""


def _arguments() -> argparse.Namespace:
    names = ResourceIds()
    parser = argparse.ArgumentParser(
        prog="python -m fakes.azure",
        description="ARM, Entra and retail prices for one AKS cluster on loopback. Prints the environment its clients\n"
        "need, then serves until it is stopped. The control API is under /fake/ on the same port.",
        epilog=_CONTROL + "\n".join(_help_on_settings()),
        formatter_class=_HelpFormatter,
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
    parser.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="a setting, see below; may be repeated",
    )
    arguments = parser.parse_args()
    try:
        arguments.settings = Settings.model_validate({"scale": arguments.scale, **dict(arguments.set)})
    except ValidationError as error:
        parser.error("; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()))
    return arguments


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
        settings=arguments.settings,
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
