"""What runs: told by the command and by a metric."""

import json
import platform
from importlib.metadata import version

import pytest
import yaml

from provisioner import __version__
from provisioner.__main__ import main
from provisioner.build import COMMIT, LIBRARIES, Build, this_build
from provisioner.kube.build_info import publish_build
from provisioner.kube.metrics import Registry

SHA = "36162eeef5c2126916881d19c48d4f51be972944"


@pytest.mark.parametrize(
    ("environment", "commit"),
    [({}, ""), ({COMMIT: ""}, ""), ({COMMIT: f" {SHA}\n"}, SHA)],
    ids=["none", "empty", "sha"],
)
def test_commit_is_what_the_image_was_built_from(environment: dict[str, str], commit: str) -> None:
    assert this_build(environment).commit == commit


def test_libraries_have_the_versions_that_are_installed() -> None:
    told = this_build({}).libraries

    assert set(told) == set(LIBRARIES)
    assert told["kopf"] == version("kopf")
    assert "not installed" not in told.values()


def test_a_library_that_is_missing_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provisioner.build.LIBRARIES", ("no-such-distribution",))

    assert this_build({}).libraries == {"no-such-distribution": "not installed"}


def test_people_are_shown_a_line_each() -> None:
    build = Build(version="1.2.3", commit="", python="3.11.7", platform="linux/x86_64", libraries={"kopf": "1.45.2"})

    assert build.text().splitlines() == [
        "gpu-provisioner  1.2.3",
        "commit           unknown",
        "python           3.11.7",
        "platform         linux/x86_64",
        "kopf             1.45.2",
    ]


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)], ids=["json", "yaml"])
def test_programs_are_told_in_a_document(
    form: str, read: type, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(COMMIT, SHA)

    assert main(["version", "-o", form]) == 0

    shown = capsys.readouterr()
    told = read(shown.out)
    assert shown.err == ""
    assert (told["version"], told["commit"], told["python"]) == (__version__, SHA, platform.python_version())
    assert set(told["libraries"]) == set(LIBRARIES)


def test_version_is_shown_without_any_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0

    assert capsys.readouterr().out == this_build().text()


def test_the_build_is_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMIT, SHA)
    metrics = Registry()

    publish_build(metrics)

    (line,) = [line for line in metrics.expose().splitlines() if line.startswith("gpu_provisioner_build_info{")]
    assert f'version="{__version__}"' in line
    assert f'commit="{SHA}"' in line
    assert f'python="{platform.python_version()}"' in line
    assert line.endswith("} 1")
