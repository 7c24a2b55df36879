"""Where the programs of the control plane come from: lookup, cache key, choice of Go, a build by a stand-in for Go."""

import io
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from fakes.cluster import binaries, build, toolchain, workshop
from fakes.cluster.binaries import MODULE, PACKAGES, BinariesMissing

NAMES = tuple(PACKAGES)
ENVTEST_NAMES = ("etcd", "kube-apiserver", "kubectl")


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin", **more}


def cache_folder(environ: Mapping[str, str]) -> Path:
    return binaries.cache_root(environ) / binaries.key()


def test_nothing_anywhere_names_all_five_and_the_command(tmp_path: Path) -> None:
    reason = binaries.skip_reason(environment(tmp_path))
    assert reason is not None
    assert all(name in reason for name in NAMES)
    assert "python -m fakes.cluster --build-only" in reason
    assert "\n" not in reason


def test_full_cache_is_enough(tmp_path: Path) -> None:
    environ = environment(tmp_path)
    paths = [executable(cache_folder(environ) / name) for name in NAMES]
    found = binaries.find(environ)
    assert [
        found.etcd,
        found.kube_apiserver,
        found.kube_controller_manager,
        found.kube_scheduler,
        found.kubectl,
    ] == paths
    assert binaries.skip_reason(environ) is None


def test_envtest_assets_win_and_the_cache_gives_what_they_lack(tmp_path: Path) -> None:
    environ = environment(tmp_path, KUBEBUILDER_ASSETS=str(tmp_path / "assets"))
    for name in ENVTEST_NAMES:
        executable(tmp_path / "assets" / name)
    for name in NAMES:
        executable(cache_folder(environ) / name)
    search = binaries.search(environ)
    assert search.found["kube-apiserver"] == tmp_path / "assets" / "kube-apiserver"
    assert search.found["kube-scheduler"] == cache_folder(environ) / "kube-scheduler"
    assert search.missing == ()
    assert search.notice is not None
    assert "has no kube-controller-manager, kube-scheduler:" in search.notice


def test_envtest_assets_alone_lack_two(tmp_path: Path) -> None:
    environ = environment(tmp_path, KUBEBUILDER_ASSETS=str(tmp_path / "assets"))
    for name in ENVTEST_NAMES:
        executable(tmp_path / "assets" / name)
    with pytest.raises(BinariesMissing, match="lacks kube-controller-manager, kube-scheduler: run"):
        binaries.find(environ)


def test_complete_assets_need_no_cache_and_no_notice(tmp_path: Path) -> None:
    environ = environment(tmp_path, KUBEBUILDER_ASSETS=str(tmp_path / "assets"))
    for name in NAMES:
        executable(tmp_path / "assets" / name)
    search = binaries.search(environ)
    assert search.notice is None
    assert {path.parent for path in search.found.values()} == {tmp_path / "assets"}


def test_file_that_cannot_be_executed_does_not_count(tmp_path: Path) -> None:
    environ = environment(tmp_path)
    for name in NAMES:
        executable(cache_folder(environ) / name)
    (cache_folder(environ) / "etcd").chmod(0o644)
    assert binaries.search(environ).missing == ("etcd",)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c", id="XDG_CACHE_HOME"),
        pytest.param({"HOME": "/h"}, "/h/.cache", id="unset"),
        pytest.param({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache", id="empty"),
        pytest.param({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache", id="relative"),
    ],
)
def test_cache_root_follows_xdg(environ: dict[str, str], expected: str) -> None:
    assert binaries.cache_root(environ) == Path(expected) / "gpu-provisioner" / "control-plane"


def test_what_else_is_built_has_a_cache_beside_it() -> None:
    assert binaries.cache_root({"HOME": "/h"}, room="suite") == Path("/h/.cache/gpu-provisioner/suite")


def copied_module(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODULE, tmp_path / "module"))


def test_key_is_stable_and_follows_each_file_and_the_flags(tmp_path: Path) -> None:
    module = copied_module(tmp_path)
    keys = [binaries.key(MODULE), binaries.key(module)]
    assert keys[0] == keys[1]
    with (module / "go.sum").open("a") as file:
        file.write("another line\n")
    keys.append(binaries.key(module))
    with (module / "go.mod").open("a") as file:
        file.write("// another line\n")
    keys.append(binaries.key(module))
    keys += [binaries.key(module, flags=("-race",)), binaries.key(module, flags=("-race", "-v"))]
    assert len(set(keys)) == 5


def test_build_flags_stamp_the_version_of_go_mod(tmp_path: Path) -> None:
    module = tmp_path
    (module / "go.mod").write_text("module m\n\ngo 1.30.1\n\nrequire (\n\tk8s.io/kubernetes v1.40.2 // indirect\n)\n")
    stamped = binaries.build_flags(module)[-1]
    assert "version.gitVersion=v1.40.2 " in stamped
    assert "version.gitMajor=1 " in stamped
    assert "version.gitMinor=40 " in stamped
    assert binaries.go_wanted(module) == "1.30.1"


def test_go_mod_names_every_package_that_is_built() -> None:
    tools = (MODULE / "go.mod").read_text().split("tool (")[1].split(")")[0].split()
    assert sorted(tools) == sorted(PACKAGES.values())


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.26 linux/amd64", (1, 26, 0)),
        ("go version go1.27rc1 linux/amd64", (1, 27, -1)),
        ("go version go1.27beta2 darwin/arm64", (1, 27, -1)),
        ("go version devel go1.28-1a2b3c4 Fri Nov 20 2026 linux/amd64", (1, 28, 0)),
        ("go version go1.26.8 X:nocoverageredesign linux/amd64", (1, 26, 8)),
        ("gccgo (GCC) 14", None),
        ("", None),
    ],
)
def test_go_versions_are_read(text: str, version: tuple[int, int, int] | None) -> None:
    assert toolchain.parse_version(text) == version


def fake_go(folder: Path, *, version: str) -> Path:
    return executable(folder / "go", f'#!/bin/sh\necho "go version go{version} linux/amd64"\n')


def test_go_on_path_is_taken_when_it_is_new_enough(tmp_path: Path) -> None:
    go = fake_go(tmp_path / "bin", version="1.99.0")
    assert toolchain.find_go(environment(tmp_path, PATH=f"{go.parent}:/bin"), stream=io.StringIO()) == go


def test_go_that_pip_installed_before_is_taken_when_path_has_an_old_one(tmp_path: Path) -> None:
    old = fake_go(tmp_path / "bin", version="1.20.1")
    environ = environment(tmp_path, PATH=f"{old.parent}:/bin")
    folder = binaries.cache_root(environ) / f"go-{binaries.go_wanted()}" / "go" / "bin"
    installed = fake_go(folder, version=binaries.go_wanted())
    assert toolchain.find_go(environ, stream=io.StringIO()) == installed


def test_go_that_pip_installed_for_another_module_is_taken_when_it_is_new_enough(tmp_path: Path) -> None:
    environ = environment(tmp_path, PATH=str(tmp_path))
    fake_go(binaries.cache_root(environ) / "go-1.20" / "go" / "bin", version="1.20.1")
    newer = fake_go(binaries.cache_root(environ) / "go-1.99" / "go" / "bin", version="1.99.3")
    assert toolchain.find_go(environ, stream=io.StringIO()) == newer


def test_without_go_and_pip_the_error_says_what_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(argv: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, returncode=1, stdout="no matching distribution\n")

    monkeypatch.setattr(subprocess, "run", fails)
    environ = environment(tmp_path, PATH=str(tmp_path))
    with pytest.raises(BinariesMissing) as missing:
        toolchain.find_go(environ, stream=io.StringIO())
    assert f"needs Go {binaries.go_wanted()} or newer: there is no go on PATH" in str(missing.value)
    assert "Install Go, or make pip work" in str(missing.value)
    assert str(missing.value).endswith("no matching distribution")
    assert list(binaries.cache_root(environ).iterdir()) == []


def test_proxy_settings_reach_go_and_a_foreign_target_does_not() -> None:
    environ = {"GOPROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:2", "GOOS": "plan9", "GOARCH": "mips"}
    given = toolchain.go_environment(environ)
    assert (given["GOPROXY"], given["HTTPS_PROXY"]) == ("http://127.0.0.1:1", "http://127.0.0.1:2")
    assert (given["GOOS"], given["GOARCH"], given["GOTOOLCHAIN"]) == ("", "", "local")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose `go` writes a script where a binary is wanted, and fails while a file `broken` is there."""
    executable(
        tmp_path / "bin" / "go",
        f"""#!/bin/sh
if [ "$1" = version ]; then echo "go version go1.99.0 linux/amd64"; exit; fi
while [ "$1" != -o ]; do shift; done
echo "$3" >> {tmp_path}/asked
if [ -e {tmp_path}/broken ]; then
  case "$3" in */kube-scheduler) printf 'half' > "$2"; echo "no space left"; exit 7;; esac
fi
printf '#!/bin/sh\\n' > "$2"
chmod +x "$2"
""",
    )
    monkeypatch.setattr(workshop, "_POLL", 0.01)
    return environment(tmp_path, PATH=f"{tmp_path}/bin:/usr/bin:/bin")


def test_build_fills_the_cache_once(tmp_path: Path, workplace: dict[str, str]) -> None:
    output = io.StringIO()
    found = build.ensure(workplace, stream=output)
    assert found.kubectl == cache_folder(workplace) / "kubectl"
    assert sorted(path.name for path in cache_folder(workplace).iterdir()) == sorted(NAMES)
    assert stat.S_IMODE(cache_folder(workplace).stat().st_mode) == 0o700
    assert (tmp_path / "asked").read_text().split() == list(PACKAGES.values())
    assert [line.split(" in ")[0] for line in output.getvalue().splitlines() if "] built" in line] == [
        f"[{number}/5] built {name}" for number, name in enumerate(NAMES, start=1)
    ]
    again = io.StringIO()
    assert build.ensure(workplace, stream=again) == found
    assert again.getvalue() == ""


def test_failed_build_tells_why_and_the_next_goes_on_where_it_was(tmp_path: Path, workplace: dict[str, str]) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(BinariesMissing, match=r"cannot build kube-scheduler \(exit code 7\)(?s:.*)no space left"):
        build.ensure(workplace, stream=io.StringIO())
    assert binaries.search(workplace).missing == ("kube-scheduler", "kubectl")
    assert list(binaries.cache_root(workplace).glob("*.building-*")) == []
    (tmp_path / "broken").unlink()
    (tmp_path / "asked").unlink()
    build.ensure(workplace, stream=io.StringIO())
    assert (tmp_path / "asked").read_text().split() == [PACKAGES["kube-scheduler"], PACKAGES["kubectl"]]


def test_two_processes_build_only_once(tmp_path: Path, workplace: dict[str, str]) -> None:
    program = "from fakes.cluster import build; build.ensure()"
    command = [sys.executable, "-c", program]
    root = Path(__file__).parents[2]
    builders = [
        subprocess.Popen(command, env={**workplace, "PYTHONPATH": str(root)}, stderr=subprocess.PIPE) for _ in range(2)
    ]
    errors = [builder.communicate(timeout=60)[1].decode() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0], errors
    assert (tmp_path / "asked").read_text().split() == list(PACKAGES.values())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_stays_on_one_line_of_a_terminal() -> None:
    terminal = Terminal()
    progress = workshop.Progress(terminal, total=2)
    progress.begin(1, name="etcd")
    progress.building(1, name="etcd", elapsed=1.4)
    assert "\n" not in terminal.getvalue()
    progress.built(1, name="etcd", elapsed=2)
    assert terminal.getvalue().endswith("\r\x1b[K[1/2] built etcd in 2 s\n")


def test_progress_without_a_terminal_is_a_line_a_minute() -> None:
    plain = io.StringIO()
    progress = workshop.Progress(plain, total=1)
    progress.begin(1, name="etcd")
    for elapsed in range(1, 130):
        progress.building(1, name="etcd", elapsed=elapsed)
    progress.built(1, name="etcd", elapsed=130)
    assert plain.getvalue().splitlines() == [
        "[1/1] building etcd ... 0 s",
        "[1/1] building etcd ... 60 s",
        "[1/1] building etcd ... 120 s",
        "[1/1] built etcd in 130 s",
    ]
