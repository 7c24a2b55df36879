"""Where Helm comes from: built once by Go from the module that is pinned."""

import io
import subprocess
from pathlib import Path

import pytest

from fakes.cluster import workshop
from fakes.cluster.binaries import BinariesMissing
from tests.charts import binary
from tests.unit.test_binaries import environment, executable


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose `go` writes a script where a program is wanted."""
    executable(
        tmp_path / "bin" / "go",
        f"""#!/bin/sh
if [ "$1" = version ]; then echo "go version go1.99.0 linux/amd64"; exit; fi
echo "$@" >> {tmp_path}/asked
if [ -e {tmp_path}/broken ]; then echo "no space left" >&2; exit 1; fi
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\\n' > "$2"
chmod +x "$2"
""",
    )
    monkeypatch.setattr(workshop, "_POLL", 0.01)
    return environment(tmp_path, PATH=f"{tmp_path}/bin:/usr/bin:/bin")


def test_helm_that_is_not_built_is_told_of_in_one_line_with_the_command(tmp_path: Path) -> None:
    reason = binary.HELM.skip_reason(environment(tmp_path))
    assert reason is not None
    assert "python -m tests.charts" in reason
    assert "\n" not in reason


def test_helm_is_built_once_and_knows_its_version(tmp_path: Path, workplace: dict[str, str]) -> None:
    built = binary.HELM.ensure(workplace, stream=io.StringIO())
    assert subprocess.run([built], check=False).returncode == 0
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert asked.startswith("build -trimpath ")
    assert f"version.version={binary.version()} " in asked
    assert asked.endswith(" helm.sh/helm/v4/cmd/helm")
    again = io.StringIO()
    assert binary.HELM.ensure(workplace, stream=again) == built == binary.HELM.find(workplace)
    assert again.getvalue() == ""


def test_a_build_that_fails_says_why_and_leaves_nothing_behind(tmp_path: Path, workplace: dict[str, str]) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(BinariesMissing, match="no space left"):
        binary.HELM.ensure(workplace, stream=io.StringIO())
    assert binary.HELM.skip_reason(workplace) is not None
