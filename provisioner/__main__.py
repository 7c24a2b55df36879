"""The `provisioner` command."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

from provisioner import __version__
from provisioner.commands.arguments import add_commands
from provisioner.settings import ControllerSettings, SettingError, Settings, flag_of, load_as, source_of
from provisioner.workspace.settings import WorkspaceSettings

# As shells report a process that a signal has ended.
_SIGNALLED: Final = 128

_log: Final = logging.getLogger(__name__)

_CONTROLLERS: Final[Mapping[str, type[ControllerSettings]]] = {"run": Settings, "workspace": WorkspaceSettings}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 done, 1 failed, 2 a setting is missing or wrong; others by command."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    kind = _CONTROLLERS.get(options.command)
    if kind is None:
        return _ask(options)
    flags = {name: getattr(options, name) for name in kind.model_fields}
    try:
        settings = load_as(kind, flags=flags, environment=os.environ)
    except SettingError as error:
        return _refuse(str(error))
    return _run(settings)


def _ask(options: argparse.Namespace) -> int:
    # Imported here, as for `run`.
    from provisioner.commands.dispatch import execute

    return execute(options, os.environ)


def _run(settings: ControllerSettings) -> int:
    # Until the controller takes signals itself, a second from here. As process 1 of a container it would not die of one
    # that nobody handles, and be waited for in vain.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(_SIGNALLED + number))
    # Imported here: --help and a wrong setting need not wait for the Azure and Kubernetes clients.
    from kubernetes.aio.config import ConfigException

    from provisioner import logs
    from provisioner.kube.lease import LeadershipLost
    from provisioner.malloc import give_back_freed_memory

    if settings.kubeconfig:
        os.environ["KUBECONFIG"] = settings.kubeconfig
    give_back_freed_memory()
    logs.configure(level=settings.log_level, log_format=settings.log_format)
    try:
        asyncio.run(_controller(settings))
    except ConfigException as error:
        return _refuse(f"KUBECONFIG is {settings.kubeconfig or 'not set'!r}: no access to a cluster: {error}")
    except SettingError as error:
        return _refuse(str(error))
    except LeadershipLost as error:
        _log.error("another instance may act by now; ending", extra={"error": str(error)})
        return 1
    except Exception:  # noqa: BLE001 -- a defect, told as all else is: a collector takes lines, not tracebacks
        _log.exception("the controller has died")
        return 1
    return 0


def _controller(settings: ControllerSettings) -> Coroutine[Any, Any, None]:
    if isinstance(settings, Settings):
        from provisioner.nodeclaim.run import run as run_claims

        return run_claims(settings)
    if isinstance(settings, WorkspaceSettings):
        from provisioner.workspace.run import run as run_workspaces

        return run_workspaces(settings)
    raise TypeError(type(settings))


def _refuse(message: str) -> int:
    print(f"provisioner: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="provisioner", description="GPU nodes for Azure Kubernetes Service.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"gpu-provisioner {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in (
        ("run", "run the controller of NodeClaims: they become AKS agent pools"),
        ("workspace", "run the controller of Workspaces: they become NodeClaims and what serves or tunes a model"),
    ):
        _add_settings(
            commands.add_parser(
                name,
                help=text,
                description=f"{text[0].upper()}{text[1:]}. Each setting is a flag or an environment variable; the flag "
                "wins.",
                allow_abbrev=False,
            ),
            _CONTROLLERS[name],
        )
    add_commands(commands)
    return parser


def _add_settings(command: argparse.ArgumentParser, kind: type[ControllerSettings]) -> None:
    for name, info in kind.model_fields.items():
        source = source_of(info)
        default = "" if info.default in ("", None) else f"; default {info.default}"
        text = f"{source.help}{default} [{', '.join(source.env)}]"
        command.add_argument(flag_of(name), dest=name, metavar="VALUE", help=text.replace("%", "%%"))


if __name__ == "__main__":
    sys.exit(main())
