"""Log lines: what they carry, and that nobody whose text is logged can forge one or leave a secret in it."""

import asyncio
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest

from provisioner import logs
from provisioner.logs import JsonFormatter, TextFormatter, bound
from provisioner.settings import LogFormat
from tests.unit.test_redaction import JWT

HOSTILE = (
    'no\n12:00:00 INFO    all is well\r\n{"level": "info"}\x1b[2J\x07\x7f\x9b31m\u2028\u202e\ud800 '
    f"Authorization: Bearer {JWT}"
)


class Log:
    """A logger whose lines are kept as they would be written."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._stream = StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(formatter)
        self.logger = logging.Logger("test")  # noqa: LOG001 -- of this test alone
        self.logger.addHandler(handler)

    @property
    def lines(self) -> list[str]:
        return self._stream.getvalue().split("\n")[:-1]

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def log() -> Log:
    return Log(JsonFormatter())


@pytest.fixture
def text() -> Log:
    return Log(TextFormatter())


def test_entry_has_time_level_and_fields(log: Log) -> None:
    log.logger.warning("%s is slow", "Azure", extra={"seconds": 1.5, "pool": "a", "is_late": True, "status": None})

    (entry,) = log.entries

    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "warning",
        "logger": "test",
        "message": "Azure is slow",
        "seconds": 1.5,
        "pool": "a",
        "is_late": True,
        "status": None,
    }


def test_what_is_bound_is_on_each_line_inside_and_on_no_other(log: Log) -> None:
    log.logger.info("before")
    with bound(claim="a", agent_pool=""):
        log.logger.info("one")
        with bound(agent_pool="p"):
            log.logger.info("two", extra={"claim": "other"})
        log.logger.info("three")
    log.logger.info("after")

    assert [(e.get("claim"), e.get("agent_pool")) for e in log.entries] == [
        (None, None),
        ("a", None),
        ("other", "p"),
        ("a", None),
        (None, None),
    ]


async def test_tasks_side_by_side_have_each_their_own(log: Log) -> None:
    async def look(name: str) -> None:
        with bound(claim=name):
            for _ in range(3):
                log.logger.info(name)
                await asyncio.sleep(0)

    await asyncio.gather(*map(look, "abc"))

    assert [entry["claim"] for entry in log.entries] == [entry["message"] for entry in log.entries]
    assert len(log.entries) == 9


def raise_hostile() -> None:
    raise ValueError(HOSTILE)


def log_hostile(log: Log) -> None:
    log.logger.error("refused: %s", HOSTILE, extra={"error": HOSTILE, "object": {"of": HOSTILE}})
    try:
        raise_hostile()
    except ValueError:
        log.logger.exception("a defect")


def test_hostile_text_is_one_entry_in_ascii_without_its_secrets(log: Log) -> None:
    log_hostile(log)

    refused, defect = log.entries

    assert refused["message"].startswith("refused: no\n12:00:00 INFO")
    assert refused["error"].endswith("Authorization: Bearer (token)")
    assert "ValueError: no" in defect["exception"]
    for line in log.lines:
        assert line.isascii()
        assert line.isprintable()
        assert JWT not in line


def test_hostile_text_on_a_terminal_begins_no_line_and_controls_nothing(text: Log) -> None:
    log_hostile(text)

    refused, defect, *traceback = text.lines

    assert " ERROR   refused: no\\n12:00:00 INFO    all is well\\r\\n" in refused
    assert defect.endswith(" ERROR   a defect")
    assert all(line.startswith("  | ") for line in traceback)
    assert "  | 12:00:00 INFO    all is well\\r" in traceback
    for line in text.lines:
        assert line.isprintable()
        assert JWT not in line


def test_fields_are_on_a_line_for_people_too(text: Log) -> None:
    with bound(claim="a"):
        text.logger.info("done", extra={"seconds": 2})

    assert text.lines[0].endswith(" INFO    done claim=a seconds=2")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger as it is set up by `configure`, put back afterwards."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    levels = {name: logging.getLogger(name).level for name in logs._QUIET}
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logging.captureWarnings(False)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_level_holds_for_libraries_as_well(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    logs.configure(level="error", log_format=log_format)
    # As kopf's are set once its watches begin.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kopf.reactor").warning("a warning")
    logging.getLogger("provisioner").info("an info")
    logging.getLogger("provisioner").error("an error")

    assert [line for line in capsys.readouterr().err.splitlines() if "an error" not in line] == []


def test_libraries_stay_quiet_where_everything_is_wanted(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(level="debug", log_format="json")
    for name in (
        "azure.core.pipeline.policies.http_logging_policy",
        "azure.identity",
        "msal",
        "aiohttp.access",
        "kopf",
    ):
        logging.getLogger(name).info("Authorization: ...")
    logging.getLogger("provisioner").debug("shown")
    warnings.warn("old", DeprecationWarning, stacklevel=1)

    entries = [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    assert [entry["logger"] for entry in entries] == ["provisioner", "py.warnings"]


def test_defect_ends_the_process_with_one_entry() -> None:
    code = """
import sys
from provisioner import __main__ as program

async def fails():
    raise ValueError("a\\nb")

program._controller = lambda settings: fails()
sys.exit(program.main(["workspace"]))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    (line,) = ended.stderr.splitlines()
    entry = json.loads(line)
    assert ended.returncode == 1
    assert (entry["level"], entry["message"]) == ("error", "the controller has died")
    assert "ValueError: a\nb" in entry["exception"]
