"""Runs a command and turns whatever ends it into one line and an exit code."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from provisioner.azure.errors import ArmFailure
from provisioner.commands import output, plan, quota, skus, status, version
from provisioner.commands.exits import Exit, Trouble
from provisioner.kube.access import ConfigException
from provisioner.kube.errors import KubeError
from provisioner.settings import SettingError

_Command = Callable[[argparse.Namespace, Mapping[str, str]], Awaitable[int]]
_COMMANDS: Final[Mapping[str, _Command]] = {
    "skus": skus.run,
    "quota": quota.run,
    "plan": plan.run,
    "status": status.run,
    "version": version.run,
}
_NOT_FOUND: Final = 404


def execute(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run the command that was asked for. Returns its exit code."""
    output.prepare()
    # What libraries have to say is for the controller's log: here the one line of the error is enough.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        return asyncio.run(_command(options, environment))
    except KeyboardInterrupt:
        return Exit.DONE if getattr(options, "watch", False) else Exit.INTERRUPTED
    except BrokenPipeError:
        output.abandon()
        return Exit.BROKEN_PIPE
    except Trouble as error:
        return _end(str(error), error.code)
    except SettingError as error:
        return _end(str(error), Exit.BAD_INPUT)
    except ConfigException as error:
        return _end(f"No access to a Kubernetes cluster: {error}. Set KUBECONFIG or --kubeconfig.", Exit.BAD_INPUT)
    except ArmFailure as error:
        # A cluster that Azure does not know is a wrong setting.
        return _end(error.failure.message, Exit.BAD_INPUT if error.status == _NOT_FOUND else Exit.FAILED)
    except KubeError as error:
        return _end(f"Kubernetes: {error}", Exit.FAILED)


async def _command(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    return await _COMMANDS[options.command](options, environment)


def _end(message: str, code: Exit) -> int:
    sys.stdout.flush()
    output.note(message)
    return code
