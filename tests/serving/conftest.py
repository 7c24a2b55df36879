"""The real vLLM on CPU, behind the program of the serving image, with a tiny model that is made here."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.serving import environment
from fakes.serving.model import make_model
from fakes.serving.process import CPU_OPTIONS, ServingProcess
from tests.unit.serving_support import free_ports

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in here."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.serving)
            # A start takes half a minute on two cores, and more of them where others work beside.
            item.add_marker(pytest.mark.timeout(600))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip all of it where vLLM has not been installed; under CI it must be there."""
    if os.environ.get("CI") != "true" and (reason := environment.skip_reason()):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def python() -> Path:
    """Return the Python that has vLLM. Raises EnvironmentMissing."""
    return environment.find()


@pytest.fixture(scope="session")
def tiny(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a model of 140,000 random parameters, with a tokenizer and a chat template."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    make_model(directory, python=python)
    return directory


Maker = Callable[..., ServingProcess]


@pytest.fixture(scope="session")
def make_server(python: Path, tiny: Path) -> Maker:
    """Return a maker of servers of the tiny model; `config` is the user's, `environment` the pod's beside the model."""

    def make(root: Path, *, config: str = CPU_OPTIONS, **environment: str) -> ServingProcess:
        variables = {"MODEL": str(tiny), "SERVED_MODEL_NAMES": "tiny", **environment}
        server = ServingProcess(python=python, root=root, environment=variables, port=free_ports())
        (root / "config" / "inference_config.yaml").write_text(config)
        return server

    return make
