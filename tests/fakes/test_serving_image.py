"""The serving image as a program of this machine: what the Dockerfile says, and a model where the Hub's would be."""

import asyncio
import sys
from pathlib import Path

import pytest

from fakes.containers import ConfigError
from fakes.serving.image import Dockerfile, Weights, instead, put_into_cache, read_dockerfile, serving_image

ROOT = Path(__file__).parents[2]


def test_dockerfile_says_how_the_image_is_run() -> None:
    text = 'FROM a\nENV A=/x \\\n    B="two words"\nRUN echo ENV\nENV C=3\nENTRYPOINT ["serving"]\nCMD ["serve", "x"]\n'

    assert read_dockerfile(text) == Dockerfile(
        environment={"A": "/x", "B": "two words", "C": "3"}, entrypoint=("serving",), command=("serve", "x")
    )


async def test_image_is_that_of_the_dockerfile(tmp_path: Path) -> None:
    image = serving_image(python=Path(sys.executable), folder=tmp_path, weights=Weights(tmp_path, python=NO_PYTHON))

    assert (image.entrypoint, image.command) == (("serving",), ("serve",))
    assert image.environment["HF_HOME"] == "/models"
    told = {"PATH": ":".join(map(str, image.paths)), **image.instead(tmp_path, "127.96.0.1")}
    # Without what it needs it says so, and is thus the program itself.
    program = await asyncio.create_subprocess_exec(
        str(tmp_path / "serving"), "wrong", env={**told, "PATH": f"{told['PATH']}:/usr/bin:/bin"}, stderr=-1, cwd="/"
    )
    _, said = await program.communicate()
    assert (program.returncode, b"serving" in said) == (2, True)


def test_process_is_told_what_a_container_sees(tmp_path: Path) -> None:
    assert instead(tmp_path, "127.96.0.1") == {
        "PYTHONPATH": str(ROOT),
        "SERVING_ROOT": str(tmp_path),
        "BIND_ADDRESS": "127.96.0.1",
        "HF_HUB_OFFLINE": "1",
    }


def test_model_lies_where_a_download_would_have_put_it(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "config.json").write_text("{}")

    for _ in range(2):
        put_into_cache(made, home=tmp_path / "models", model="microsoft/Phi", revisions=("main", "abc"))

    folder = tmp_path / "models" / "hub" / "models--microsoft--Phi"
    commits = {(folder / "refs" / revision).read_text() for revision in ("main", "abc")}
    assert [(folder / "snapshots" / commit / "config.json").read_text() for commit in commits] == ["{}"]


NO_PYTHON = Path("/bin/false")


@pytest.mark.parametrize("model", ["", "/data/model", "./model"])
async def test_model_that_is_no_name_is_left_as_it_is(tmp_path: Path, model: str) -> None:
    weights = Weights(tmp_path / "made", python=NO_PYTHON)

    await weights.fill(tmp_path, {"MODEL": model, "HF_HOME": str(tmp_path / "models")})

    assert not (tmp_path / "models").exists()


async def test_model_that_cannot_be_made_keeps_the_container_from_starting(tmp_path: Path) -> None:
    weights = Weights(tmp_path / "made", python=NO_PYTHON)

    with pytest.raises(ConfigError, match="no model could be made"):
        await weights.fill(tmp_path, {"MODEL": "microsoft/Phi", "HF_HOME": str(tmp_path / "models")})
