"""Where Karpenter's own suite comes from: built once by Go from the module that is pinned, with Karpenter's CRDs."""

import io
import subprocess
from pathlib import Path

import pytest

from fakes.cluster import workshop
from fakes.cluster.binaries import BinariesMissing
from tests.conformance import suite
from tests.unit.test_binaries import environment, executable


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose `go` writes a script where a program is wanted, and knows of a module with two CRDs."""
    crds = tmp_path / "module" / "pkg" / "apis" / "crds"
    crds.mkdir(parents=True)
    for name in ("nodeclaims", "nodepools"):
        (crds / f"{name}.yaml").write_text(f"name: {name}\n")
        # As Go leaves what it has downloaded.
        (crds / f"{name}.yaml").chmod(0o444)
    executable(
        tmp_path / "bin" / "go",
        f"""#!/bin/sh
case "$1" in
version) echo "go version go1.99.0 linux/amd64"; exit;;
list) if [ -e {tmp_path}/unknown ]; then echo "not a known dependency" >&2; exit 1; fi
  echo {tmp_path}/module; exit;;
esac
echo "$@" >> {tmp_path}/asked
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\\n' > "$2"
chmod +x "$2"
""",
    )
    monkeypatch.setattr(workshop, "_POLL", 0.01)
    return environment(tmp_path, PATH=f"{tmp_path}/bin:/usr/bin:/bin")


def test_suite_that_is_not_built_is_told_of_in_one_line_with_the_command(tmp_path: Path) -> None:
    reason = suite.SUITE.skip_reason(environment(tmp_path))
    assert reason is not None
    assert "python -m tests.conformance" in reason
    assert "\n" not in reason


def test_suite_is_built_once_with_the_crds_of_its_module(tmp_path: Path, workplace: dict[str, str]) -> None:
    suite.SUITE.ensure(workplace, stream=io.StringIO())
    built = suite.find(workplace)
    assert subprocess.run([built.binary], check=False).returncode == 0
    assert [path.name for path in sorted(built.crds.iterdir())] == ["nodeclaims.yaml", "nodepools.yaml"]
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert asked.startswith("test -c ")
    assert asked.endswith(" sigs.k8s.io/karpenter/test/suites/regression")
    again = io.StringIO()
    assert suite.SUITE.ensure(workplace, stream=again) == built.binary
    assert again.getvalue() == ""


def test_suite_without_its_crds_is_no_suite_and_comes_by_the_next_build(
    tmp_path: Path, workplace: dict[str, str]
) -> None:
    (tmp_path / "unknown").touch()
    with pytest.raises(BinariesMissing, match="not a known dependency"):
        suite.SUITE.ensure(workplace, stream=io.StringIO())
    assert suite.SUITE.skip_reason(workplace) is not None
    (tmp_path / "unknown").unlink()
    assert suite.SUITE.ensure(workplace, stream=io.StringIO()) == suite.find(workplace).binary


def test_module_pins_karpenter_by_version_and_sum() -> None:
    (required,) = [
        line for line in (suite.MODULE / "go.mod").read_text().splitlines() if line.startswith("require sigs")
    ]
    _, name, version = required.split()
    assert f"{name} {version} h1:" in (suite.MODULE / "go.sum").read_text()
