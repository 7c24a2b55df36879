"""The command line: what is taken, what is refused in one line, and which settings count."""

import argparse
import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.__main__ import main
from provisioner.apis.failure import Failure, FailureClass
from provisioner.azure.errors import ArmFailure
from provisioner.commands import dispatch, output
from provisioner.commands.arguments import add_commands
from provisioner.commands.exits import Exit, Trouble
from provisioner.commands.inputs import azure_settings, kubernetes_settings
from provisioner.kube.access import ConfigException
from provisioner.kube.errors import Unavailable
from provisioner.settings import SettingError

AZURE = {
    "ARM_SUBSCRIPTION_ID": "00000000-0000-4000-8000-000000000001",
    "ARM_RESOURCE_GROUP": "rg-gpu",
    "AZURE_CLUSTER_NAME": "aks-gpu",
    "DEPLOYMENT_MODE": "managed",
}


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(dest="command"))
    return parser.parse_args(arguments)


def test_without_a_command_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr()
    assert all(command in shown.out for command in ("run", "skus", "quota", "plan", "status"))
    assert shown.err == ""


@pytest.mark.parametrize("command", ["skus", "quota", "plan", "status"])
def test_help_has_examples_and_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"provisioner {command}" in shown.splitlines()[0]
    assert "examples:" in shown
    assert "exit codes:" in shown
    assert "settings:" in shown


WRONG = [
    ("skus", "--gpu", " "),
    ("skus", "--min-gpu-memory", "-1"),
    ("skus", "--min-gpu-memory", "nan"),
    ("skus", "--region", "west/europe"),
    ("skus", "-o", "xml"),
    ("skus", "--avail"),
    ("quota", "--require", "0", "--size", "x"),
    ("quota", "--require", "\N{ARABIC-INDIC DIGIT TWO}", "--size", "x"),
    ("plan",),
    ("plan", "-f", "x", "--why", "not"),
    ("status", "-w", "--exit-code"),
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_argument_is_refused(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)

    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--require", "2"), ("--size", "x"), ("--spot",)])
def test_half_a_question_is_refused(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quota", *arguments]) == Exit.BAD_INPUT
    assert "--require" in one_line(capsys)


def test_region_may_be_written_as_people_do() -> None:
    assert parse("skus", "--region", "West Europe").region == "westeurope"


def test_settings_are_read_from_flags_and_environment() -> None:
    options = parse("skus", "--cluster-name", "other")
    settings = azure_settings(options, AZURE)

    assert (settings.cluster_name, settings.resource_group) == ("other", "rg-gpu")


def test_settings_of_the_controller_alone_do_not_matter() -> None:
    environment = {**AZURE, "RECONCILE_WORKERS": "many", "METRICS_PORT": "-1"}

    assert azure_settings(parse("plan", "-f", "x"), environment).cluster_name == "aks-gpu"


def test_missing_setting_is_named() -> None:
    with pytest.raises(SettingError, match="ARM_RESOURCE_GROUP is missing"):
        azure_settings(parse("quota"), {**AZURE, "ARM_RESOURCE_GROUP": ""})


def test_status_needs_no_setting_of_azure() -> None:
    settings = kubernetes_settings(parse("status", "--kubeconfig", "/k"), {"ARM_RESOURCE_GROUP": "a/b"})

    assert settings.kubeconfig == "/k"


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({}, "https://prices.azure.com"),
        ({"PRICING_ENDPOINT": "https://mirror.example/"}, "https://mirror.example"),
        ({"PRICING_ENDPOINT": "none"}, ""),
        ({"AZURE_CLOUD": "china"}, ""),
    ],
)
def test_prices_are_read_where_there_are_any(environment: dict[str, str], endpoint: str) -> None:
    given = {**AZURE, **environment}

    assert azure_settings(parse("skus"), given).price_list == endpoint


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith("provisioner: ")
    assert line.isprintable()
    assert shown.out == ""
    return line


ENDINGS: dict[str, tuple[BaseException, Exit, str]] = {
    "trouble": (Trouble("no such\nfile \x1b[2J"), Exit.BAD_INPUT, "no such file [2J"),
    "setting": (SettingError("X is missing"), Exit.BAD_INPUT, "X is missing"),
    "Azure": (
        ArmFailure(Failure(kind=FailureClass.THROTTLED, message="too many calls"), status=429),
        Exit.FAILED,
        "too many calls",
    ),
    "no cluster": (
        ArmFailure(Failure(kind=FailureClass.AUTH, message="No AKS cluster 'x'"), status=404),
        Exit.BAD_INPUT,
        "No AKS cluster 'x'",
    ),
    "Kubernetes": (Unavailable("GET /x: no answer"), Exit.FAILED, "Kubernetes: GET /x: no answer"),
    "no access": (ConfigException("there is no file /k"), Exit.BAD_INPUT, "Set KUBECONFIG or --kubeconfig"),
}


@pytest.mark.parametrize(("error", "code", "told"), ENDINGS.values(), ids=ENDINGS.keys())
def test_every_end_is_one_line_and_a_code(
    error: BaseException, code: Exit, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    end_with(error, monkeypatch)

    assert dispatch.execute(parse("skus"), {}) == code
    assert told in one_line(capsys)


@pytest.mark.parametrize(("arguments", "code"), [(("status", "-w"), 0), (("status",), 130), (("skus",), 130)])
def test_ctrl_c_ends_in_silence(
    arguments: tuple[str, ...], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    end_with(KeyboardInterrupt(), monkeypatch)

    assert dispatch.execute(parse(*arguments), {}) == code
    assert capsys.readouterr() == ("", "")


def test_reader_that_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    end_with(BrokenPipeError(), monkeypatch)
    monkeypatch.setattr(output, "abandon", lambda: None)

    assert dispatch.execute(parse("skus"), {}) == Exit.BROKEN_PIPE
    assert capsys.readouterr() == ("", "")


@pytest.fixture(autouse=True)
def _quiet_root() -> Iterator[None]:
    handlers = list(logging.getLogger().handlers)
    yield
    logging.getLogger().handlers[:] = handlers


def end_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(options: argparse.Namespace, environment: object) -> int:
        await asyncio.sleep(0)
        raise error

    monkeypatch.setattr(dispatch, "_COMMANDS", dict.fromkeys(("skus", "quota", "plan", "status"), run))


def test_plan_of_a_missing_file_needs_no_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-f", str(tmp_path / "none.yaml")]) == Exit.BAD_INPUT
    assert "No such file" in one_line(capsys)
