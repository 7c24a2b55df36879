"""The Dockerfile of the serving image, as far as it can be known without building it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from provisioner.serving.arguments import RANKS
from provisioner.serving.options import _REFUSED

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "provisioner" / "serving"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
DOCUMENT = (ROOT / "docs" / "serving.md").read_text()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return what the Dockerfile copies, and nothing else."""
    for source, target in re.findall(r"^COPY (\S+) (/opt/serving/\S+)$", DOCKERFILE, re.MULTILINE):
        to = tmp_path / target.removeprefix("/opt/serving/")
        to.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, to)
        else:
            shutil.copy(ROOT / source, to)
    return tmp_path


def test_what_is_copied_is_enough_for_every_module(copied: Path) -> None:
    modules = sorted(f"provisioner.serving.{path.stem}" for path in FOLDER.glob("*.py"))
    code = f"import provisioner, {', '.join(modules)}; assert provisioner.__file__.startswith({str(copied)!r})"

    found = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(copied)}, cwd=copied, capture_output=True, text=True
    )

    assert (found.returncode, found.stderr) == (0, "")


def test_a_probe_imports_nothing_that_takes_long(copied: Path) -> None:
    code = (
        "import sys; from provisioner.serving.__main__ import main; main(['check', 'alive']);"
        "print([name for name in ('aiohttp', 'pydantic', 'yaml', 'torch') if name in sys.modules])"
    )

    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(copied), "MODEL": "m", "SERVING_PORT": "1"},
        cwd=copied,
        capture_output=True,
        text=True,
    )

    assert found.stdout.splitlines() == ["the program does not answer on its port", "[]"]


def test_the_image_runs_as_the_user_of_the_pods_and_fixes_what_it_adds() -> None:
    installed = re.search(r"pip install(.*?)&& rm", DOCKERFILE, re.DOTALL)
    assert installed is not None
    added = [word for word in installed[1].split() if re.match(r"[a-z]+\b", word) and not word.startswith("/")]

    assert DOCKERFILE.rstrip().splitlines()[-4] == "USER 1000:1000"
    assert added
    assert all(re.fullmatch(r"[a-z]+==[\d.]+", word) for word in added)
    assert "--constraint" in DOCKERFILE


def test_the_document_names_what_is_refused() -> None:
    sections = ("ssl-", "master-", "data-parallel-", "enable-ssl", "fd", "model-tag", "node-rank", "nnodes")

    for name in _REFUSED:
        assert name.startswith(sections) or f"`{name}`" in DOCUMENT, name
    for section in ("`ssl-*`", "`master-*`", "`data-parallel-*`", "`nnodes`", "`node-rank`"):
        assert section in DOCUMENT
    assert list(RANKS) == sorted(RANKS)


def test_every_variable_and_call_is_in_the_document() -> None:
    code = "".join(path.read_text() for path in FOLDER.glob("*.py") if path.name != "environment.py")
    read = set(re.findall(r'variables(?:\.get\(|\[)"([A-Z_]+)"', code)) | {"API_KEY", "VLLM_API_KEY", "SERVING_ROOT"}

    assert {"HF_TOKEN", "SERVING_PORT", "BIND_ADDRESS"} <= read
    for name in read - {"POD_IP"}:
        assert f"`{name}`" in DOCUMENT, name
    for call in ("serve", "tune", "pull", "fetch", "check"):
        assert f"| `serving {call}" in DOCUMENT
