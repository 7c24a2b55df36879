"""Our NodeClaim CRD takes and shows what Karpenter's own does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conformance.suite import Suite

pytestmark = pytest.mark.real_only("Karpenter's CRDs come with its suite, which is built for these tests")

NAME = "karpenter.sh_nodeclaims.yaml"
OURS = Path(__file__).parents[2] / "crds" / NAME

SPEC = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties"
VALUES = f"{SPEC}/requirements/items/properties/values"
EXPECTED = {
    # Karpenter's default would take down nodes that serve after thirty days, and nobody makes them anew.
    f"{SPEC}/expireAfter/default": ("720h", "Never"),
    # Rules for strings, on a list: without effect.
    f"{VALUES}/maxLength": (63, None),
    f"{VALUES}/pattern": ("^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$", None),
    "/metadata/annotations": ({"controller-gen.kubebuilder.io/version": "v0.20.1"}, None),
}


def differences(theirs: Any, ours: Any, path: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Return where two manifests differ, but for texts and the order of what is allowed."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in theirs.keys() | ours.keys():
            if key != "description" or not isinstance(theirs.get(key), str):
                yield from differences(theirs.get(key), ours.get(key), f"{path}/{key}")
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        if path.endswith("/enum"):
            theirs, ours = sorted(theirs), sorted(ours)
        for number, (their, our) in enumerate(zip(theirs, ours, strict=True)):
            yield from differences(their, our, f"{path}/{number}")
    elif theirs != ours:
        yield path, (theirs, ours)


def test_it_differs_from_karpenters_by_design_alone(karpenter: Suite) -> None:
    theirs, ours = (yaml.safe_load(path.read_text()) for path in (karpenter.crds / NAME, OURS))
    assert dict(differences(theirs, ours)) == EXPECTED
