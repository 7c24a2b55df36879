"""The package as the image gets it: a wheel of what the build is given, run as it is there.

Libraries are those of the tests; `python -m tests.image` installs the image's own.
"""

import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from provisioner import __version__
from provisioner.build import LIBRARIES
from tests.image.dockerfile import ROOT, context
from tests.image.program import Program


def installed(folder: Path) -> Path:
    """Build the wheel without a package index, and unpack it where nobody can write."""
    source, target = folder / "src", folder / "site"
    for name in context():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-c", f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    for path in [target, *target.rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    return target


def test_the_program_runs_from_a_tree_that_it_cannot_write_to(tmp_path: Path) -> None:
    target = installed(tmp_path)
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    # Without the checkout, which is beside the libraries by a .pth file or a finder of its own: it comes after these.
    paths = [target, Path(sysconfig.get_path("purelib"))]
    program = Program(
        [sys.executable, "-P"], home=home, variables={"PYTHONPATH": ":".join(str(path) for path in paths)}
    )

    told = program.check(installed=target)

    assert set(told["libraries"]) == set(LIBRARIES)


def test_the_wheel_has_the_data_files_and_no_tests(tmp_path: Path) -> None:
    target = installed(tmp_path)

    metadata = f"gpu_provisioner-{__version__}.dist-info"
    names = [str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()]
    assert {name for name in names if name.startswith("provisioner/") and not name.endswith(".py")} == {
        str(path) for path in context() if path.suffix == ".json"
    }
    assert {name.partition("/")[0] for name in names} == {"provisioner", metadata}
    assert f"{metadata}/licenses/LICENSE" in names
