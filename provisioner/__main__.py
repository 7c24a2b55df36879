"""The `provisioner` command."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from provisioner import __version__
from provisioner.commands.arguments import add_commands
from provisioner.settings import SettingError, Settings, flag_of, load, source_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 done, 1 failed, 2 a setting is missing or wrong; others by command."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    if options.command != "run":
        return _ask(options)
    flags = {name: getattr(options, name) for name in Settings.model_fields}
    try:
        settings = load(flags=flags, environment=os.environ)
    except SettingError as error:
        return _refuse(str(error))
    return _run(settings)


def _ask(options: argparse.Namespace) -> int:
    # Imported here, as for `run`.
    from provisioner.commands.dispatch import execute

    return execute(options, os.environ)


def _run(settings: Settings) -> int:
    # Imported here: --help and a wrong setting need not wait for the Azure and Kubernetes clients.
    from kubernetes.aio.config import ConfigException

    from provisioner import logs
    from provisioner.malloc import give_back_freed_memory
    from provisioner.nodeclaim.run import run

    if settings.kubeconfig:
        os.environ["KUBECONFIG"] = settings.kubeconfig
    give_back_freed_memory()
    logs.configure(level=settings.log_level, log_format=settings.log_format)
    try:
        asyncio.run(run(settings))
    except ConfigException as error:
        return _refuse(f"KUBECONFIG is {settings.kubeconfig or 'not set'!r}: no access to a cluster: {error}")
    except SettingError as error:
        return _refuse(str(error))
    return 0


def _refuse(message: str) -> int:
    print(f"provisioner: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="provisioner", description="GPU nodes for Azure Kubernetes Service.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"gpu-provisioner {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run the controller: NodeClaims become AKS agent pools",
        description="Run the controller. Each setting is a flag or an environment variable; the flag wins.",
        allow_abbrev=False,
    )
    for name, info in Settings.model_fields.items():
        source = source_of(info)
        default = "" if info.default in ("", None) else f"; default {info.default}"
        text = f"{source.help}{default} [{', '.join(source.env)}]"
        run.add_argument(flag_of(name), dest=name, metavar="VALUE", help=text.replace("%", "%%"))
    add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
