"""The serving image's program: serve, tune, pull, fetch, check."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from provisioner.serving import check
from provisioner.serving.environment import (
    CHECK,
    FETCH,
    PORT,
    PULL,
    SERVE,
    TUNE,
    BadEnvironment,
    ServeEnvironment,
    TuneEnvironment,
)
from provisioner.serving.places import Places
from provisioner.serving.problem import Problem, one_line, write_termination_message

_log: Final = logging.getLogger(__name__)
# What tuning starts once for each GPU.
TRAIN: Final = "train"
_USAGE: Final = """usage: serving serve
       serving tune
       serving pull IMAGE DIRECTORY
       serving fetch DIRECTORY
       serving check started|alive|ready
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return the exit code: 0 done, 1 could not be done, 2 wrongly called."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    variables = dict(os.environ)
    if given[:1] == [CHECK] and len(given) == 2 and given[1] in check.WHAT:
        return _check(given[1], variables)
    # The first process of a container ignores what it has no handler for. A server has another one once it runs.
    signal.signal(signal.SIGTERM, _end)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        return _run(given, variables)
    except (Problem, BadEnvironment) as problem:
        text = one_line(str(problem))
        _log.error("%s", text)
        write_termination_message(Places.from_env(variables).termination_message, text)
        return 1


def _end(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _run(given: Sequence[str], variables: Mapping[str, str]) -> int:
    # Imported where they are needed: a probe runs every few seconds, and needs none of it.
    places = Places.from_env(variables)
    match given:
        case [name] if name == SERVE:
            from provisioner.serving.supervise import Server

            server = Server(
                ServeEnvironment.from_env(variables),
                places=places,
                variables=variables,
                host=variables.get("BIND_ADDRESS") or None,
                port=_port(variables),
            )
            asyncio.run(server.run())
        case [name] if name == TUNE:
            from provisioner.serving import tune

            asyncio.run(tune.run(TuneEnvironment.from_env(variables), places=places, variables=variables))
        case [name] if name == TRAIN:
            from provisioner.serving import train

            train.run(TuneEnvironment.from_env(variables), places=places)
        case [name, image, directory] if name == PULL:
            from provisioner.serving import pull

            asyncio.run(pull.run(image, Path(directory), secrets=places.registry_secrets))
        case [name, directory] if name == FETCH:
            from provisioner.serving import fetch

            asyncio.run(fetch.run(Path(directory), variables=variables))
        case _:
            sys.stderr.write(_USAGE)
            return 2
    return 0


def _check(what: str, variables: Mapping[str, str]) -> int:
    try:
        environment = ServeEnvironment.from_env(variables)
        host, port = variables.get("BIND_ADDRESS") or "127.0.0.1", _port(variables)
        found = check.check(what, environment=environment, ask=check.ask, reach=check.reach, host=host, port=port)
    except BadEnvironment as error:
        found = check.Result(ok=False, line=str(error))
    sys.stdout.write(one_line(found.line) + "\n")
    return 0 if found.ok else 1


def _port(variables: Mapping[str, str]) -> int:
    text = variables.get("SERVING_PORT", "")
    if not text:
        return PORT
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) < 65535:
        raise BadEnvironment(f"SERVING_PORT is {text[:40]!r}: must be a port")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
