"""`python -m tests.image`: what the controllers' Dockerfile does, done twice in a folder instead of an image.

Needs the package index that pip is set up for, and no container runtime. The program is asked what can be asked of it,
without a right to write anywhere and, where this runs as root, as the user of the image. Then both builds are compared.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.image.dockerfile import Dockerfile
from tests.image.program import COMMIT_TOLD, Program
from tests.image.replay import Replay

_ARGUMENTS: Final = {"COMMIT": COMMIT_TOLD, "SOURCE_DATE_EPOCH": "1700000000"}


def main() -> int:
    """Return 0 where the program works, and both builds have the same files."""
    with tempfile.TemporaryDirectory(prefix="image-") as scratch:
        # Paths are in the files: in scripts, and in bytecode for tracebacks. So both are built at the same place.
        image, home = Path(scratch) / "image", Path(scratch) / "home"
        home.mkdir()
        Path(scratch).chmod(0o755)
        home.chmod(0o555)
        told = _build(image, home=home)
        first = _digest(image)
        _remove(image)
        _build(image, home=home)
        again = _digest(image)
        different = sorted(name for name in first.keys() | again.keys() if first.get(name) != again.get(name))
        size = sum(path.lstat().st_size for path in (image / "opt").rglob("*") if not path.is_symlink()) / (1 << 20)
        sys.stdout.write(
            f"{told}\n{len(first)} files, /opt/provisioner {size:.0f} MiB; "
            f"{len(different)} files are not the same the second time {different[:5]}\n"
        )
        _remove(image)
        return 1 if different else 0


def _build(image: Path, *, home: Path) -> dict[str, object]:
    image.mkdir()
    replay = Replay(image, arguments=_ARGUMENTS)
    replay.run(Dockerfile.read())
    user = int(replay.user.partition(":")[0]) if os.getuid() == 0 else None
    variables = {**replay.environment, "LD_LIBRARY_PATH": replay.libraries}
    # Its own HOME is /, which nobody but root may write to either.
    program = Program(
        [str(image / "opt/provisioner/bin/python3")], home=home, variables={**variables, "HOME": str(home)}, user=user
    )
    told = program.check(installed=image / "opt/provisioner")
    script = subprocess.run(
        ["provisioner", "--version"], env=variables, cwd=home, user=user, capture_output=True, text=True, check=True
    )
    assert script.stdout == f"gpu-provisioner {told['version']}\n", script
    for tool in ("pip", "setuptools", "wheel"):
        left = program.call("-c", f"import {tool}")
        assert "ModuleNotFoundError" in left.stderr, f"{tool} is left in the image"
    metadata = list((image / "opt/provisioner/lib").glob("python3*/site-packages/*.dist-info/METADATA"))
    assert len(metadata) > len(told["libraries"]), "a bill of materials is made of these"
    return told


def _remove(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


def _digest(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Return content, mode and time by name. Times of the base image's files are not ours to set."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mode,
            int(path.stat().st_mtime) if path.is_relative_to(folder / "opt") and path.name != "LICENSE" else 0,
        )
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


if __name__ == "__main__":
    sys.exit(main())
