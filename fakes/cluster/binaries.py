"""Where the five programs of the control plane are: in KUBEBUILDER_ASSETS, else in a cache that is filled once."""

import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODULE: Final = Path(__file__).with_name("gomodule")

# Program -> Go package, as go.mod names them. In the order in which they are built: etcd fails soonest when something
# is wrong with Go or the network, and each of the others reuses most of what the API server has compiled.
PACKAGES: Final[Mapping[str, str]] = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
# The variable of controller-runtime's envtest. Its sets hold etcd, kube-apiserver and kubectl only.
ASSETS: Final = "KUBEBUILDER_ASSETS"
BUILD_COMMAND: Final = "python -m fakes.cluster --build-only"


class BinariesMissing(RuntimeError):
    """Programs are not there, or cannot be built; the message says which and what to do."""


@dataclass(frozen=True, kw_only=True)
class Binaries:
    """The five programs of one control plane."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kube_scheduler: Path
    kubectl: Path


@dataclass(frozen=True, kw_only=True)
class Search:
    """What was found where. `notice` tells in one line what KUBEBUILDER_ASSETS was expected to hold and does not."""

    found: Mapping[str, Path]
    missing: tuple[str, ...]
    notice: str | None

    def binaries(self) -> Binaries:
        """Return the programs, or raise BinariesMissing."""
        if self.missing:
            message = (
                f"the control plane lacks {', '.join(self.missing)}: "
                f"run `{BUILD_COMMAND}` (once, about five minutes), or point {ASSETS} at a folder that holds them"
            )
            raise BinariesMissing(message)
        return Binaries(**{name.replace("-", "_"): path for name, path in self.found.items()})


def cache_root(environ: Mapping[str, str] = os.environ, *, room: str = "control-plane") -> Path:
    """Return the folder that all caches of the control plane lie in, or of what else is built here."""
    base = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    parent = Path(base) if Path(base).is_absolute() else Path(environ.get("HOME") or Path.home()) / ".cache"
    return parent / "gpu-provisioner" / room


def go_wanted(module: Path = MODULE) -> str:
    """Return the lowest Go version that go.mod allows, such as `1.26.0`."""
    return _first(r"^go (\S+)$", module)


def build_flags(module: Path = MODULE) -> tuple[str, ...]:
    """Return the flags of `go build`. Without the version flags the API server calls itself v0.0.0-master."""
    version = _first(r"^\s*k8s\.io/kubernetes (v\S+)(?: //.*)?$", module)
    major, minor, _ = version.removeprefix("v").split(".", 2)
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    stamped = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in stamps.items())
    return ("-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags", f"-s -w {stamped}")


def key(module: Path = MODULE, *, flags: Iterable[str] | None = None) -> str:
    """Return the name of the cache folder: another one as soon as anything is another that goes into the build.

    `flags` are the flags of the build, those of the control plane where they are not given.
    """
    digest = hashlib.sha256()
    for part in (
        (module / "go.mod").read_bytes(),
        (module / "go.sum").read_bytes(),
        "\0".join(build_flags(module) if flags is None else flags).encode(),
        f"{sys.platform} {platform.machine()}".encode(),
    ):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


def search(environ: Mapping[str, str] = os.environ, *, module: Path = MODULE) -> Search:
    """Look for the programs, first where KUBEBUILDER_ASSETS points, then in the cache."""
    assets = environ.get(ASSETS)
    found = _programs(Path(assets), names=PACKAGES) if assets else {}
    notice = None
    if assets and (absent := [name for name in PACKAGES if name not in found]):
        notice = f"{ASSETS} ({assets}) has no {', '.join(absent)}: taken from the cache"
    cached = _programs(cache_root(environ) / key(module), names=(name for name in PACKAGES if name not in found))
    found = {**found, **cached}
    return Search(found=found, missing=tuple(name for name in PACKAGES if name not in found), notice=notice)


def find(environ: Mapping[str, str] = os.environ) -> Binaries:
    """Return the five programs. Raises BinariesMissing: nothing is built here."""
    return search(environ).binaries()


def skip_reason(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return None when a control plane can be started, else one line on what is missing and how to get it."""
    try:
        find(environ)
    except BinariesMissing as missing:
        return str(missing)
    return None


def _programs(folder: Path, *, names: Iterable[str]) -> dict[str, Path]:
    return {name: path for name in names if (path := folder / name).is_file() and os.access(path, os.X_OK)}


def _first(pattern: str, module: Path) -> str:
    match = re.search(pattern, (module / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise BinariesMissing(f"{module / 'go.mod'} has no line {pattern}")
    return match.group(1)
