"""What a real API server takes for a KaitoNodeClass; what the controller takes is proven by the same tables."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.aks import CRDS
from fakes.cluster.api import ApiClient, ApiError
from fakes.cluster.interface import ControlPlane
from tests.kube import NODE_CLASSES, clear
from tests.node_classes import ACCEPTED, REFUSED, node_class

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "kaitonodeclass.yaml"

pytestmark = pytest.mark.real_only("rules in CEL are evaluated there alone")


@pytest.fixture(scope="module")
def admin(control_plane: ControlPlane) -> Iterator[ApiClient]:
    control_plane.apply(*CRDS)
    yield control_plane.client()
    asyncio.run(clear(control_plane))


def try_out(admin: ApiClient, spec: Mapping[str, Any]) -> Any:
    """Have a class checked as on creation, without keeping it."""
    return admin.request("POST", f"{NODE_CLASSES}?dryRun=All", body=node_class("tried", **spec))["spec"]


@pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in ACCEPTED.items()])
def test_accepted_and_kept_as_written(admin: ApiClient, spec: dict[str, Any]) -> None:
    assert try_out(admin, spec) == spec


def test_example_of_the_document_is_taken(admin: ApiClient) -> None:
    example = yaml.safe_load(EXAMPLE.read_text())
    assert admin.request("POST", f"{NODE_CLASSES}?dryRun=All", body=example)["spec"] == example["spec"]


@pytest.mark.parametrize(("says", "spec"), [pytest.param(*case, id=name) for name, case in REFUSED.items()])
def test_refused(admin: ApiClient, says: str, spec: dict[str, Any]) -> None:
    assert says in refusal(lambda: try_out(admin, spec))


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ApiError) as refused:
        call()
    assert refused.value.status == 422
    return str(refused.value)
