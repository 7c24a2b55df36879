"""What a class means for nodes: a hash that tells of changes, terms of offers, and what is wrong with it."""

from decimal import Decimal
from typing import Any

import pytest

from provisioner.nodeclaim.nodeclass import (
    hash_annotations,
    ignores_gpus,
    launch_annotations,
    pool_hash,
    problem,
    spec_of,
    terms,
)
from provisioner.placement.market import Terms
from tests.node_classes import FULL
from tests.unit.builders import claim


def of_spec(spec: Any, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "gold", "generation": 1, **metadata}, "spec": spec}


GOLD = {"subnet": "gpu", "rows": ["1", "2"], "driver": {"install": False, "version": "570"}}


@pytest.mark.parametrize(
    "same",
    [
        {"rows": ["1", "2"], "driver": {"version": "570", "install": False}, "subnet": "gpu"},
        GOLD | {"sizePreference": "Listed"},
        GOLD | {"zones": ["1"]},
        GOLD | {"maxPricePerHour": 4.5},
        GOLD | {"devicePlugin": "Ignored"},
        GOLD | {"spot": {"maxPrice": 1.5}},
        GOLD | {"tags": {}, "image": None, "labels": [], "family": "", "disk": {"kind": None}},
    ],
)
def test_hash_is_the_same_where_nodes_are_made_the_same(same: dict[str, Any]) -> None:
    assert pool_hash(of_spec(same)) == pool_hash(of_spec(GOLD, generation=7))


@pytest.mark.parametrize(
    "other",
    [
        GOLD | {"subnet": "cpu"},
        GOLD | {"rows": ["1"]},
        GOLD | {"rows": ["2", "1"]},
        GOLD | {"spot": {"maxPrice": 1.5, "evictionPolicy": "Deallocate"}},
        GOLD | {"driver": {"install": True, "version": "570"}},
        GOLD | {"a field of a later version": 0},
        GOLD | {"labels": {"team": ""}},
        {"subnet": "gpu"},
        {},
    ],
)
def test_hash_is_another_where_any_field_that_shapes_nodes_is(other: dict[str, Any]) -> None:
    assert pool_hash(of_spec(other)) != pool_hash(of_spec(GOLD))


@pytest.mark.parametrize(
    "raw",
    [None, of_spec(GOLD, deletionTimestamp="2026-11-21T04:34:24Z"), {"metadata": {"deletionTimestamp": "x"}}],
)
def test_class_that_is_not_there_has_no_hash(raw: dict[str, Any] | None) -> None:
    assert pool_hash(raw) == ""


@pytest.mark.parametrize("spec", [{}, None, "text", {"sizePreference": "Price"}])
def test_class_without_fields_is_as_good_as_none(spec: Any) -> None:
    assert hash_annotations(pool_hash(of_spec(spec))) == hash_annotations("")


def test_hash_is_written_as_karpenters_providers_do() -> None:
    # Stored on claims: another value would make every node of today look changed.
    assert hash_annotations(pool_hash(of_spec(GOLD))) == {
        "kaito.sh/kaitonodeclass-hash": "7a140819159be620",
        "kaito.sh/kaitonodeclass-hash-version": "v1",
    }


CHOICES = {"devicePlugin", "maxPricePerHour", "sizePreference", "spot", "zones"}


@pytest.mark.parametrize("field", sorted(FULL.keys() - CHOICES))
def test_every_field_that_is_no_choice_counts(field: str) -> None:
    without = {name: value for name, value in FULL.items() if name != field}
    assert pool_hash(of_spec(FULL)) != pool_hash(of_spec(without))


def test_class_whose_spot_is_no_object_has_a_hash() -> None:
    assert pool_hash(of_spec({"spot": "cheap"})) != pool_hash(of_spec({}))


def test_terms_are_what_the_class_says_of_offers() -> None:
    spec = spec_of(of_spec({**FULL, "osDiskType": "Ephemeral"}))
    assert terms("gold", spec) == Terms(
        owner="KaitoNodeClass gold",
        zones=("1", "3"),
        max_price=Decimal("8.5"),
        max_spot_price=Decimal("1.25"),
        gpu_instance_profile="MIG1g",
        needs_ephemeral_os_disk=True,
        os_disk_gib=256,
    )


@pytest.mark.parametrize(
    "raw", [None, of_spec(FULL, deletionTimestamp="2026-11-21T04:34:24Z"), of_spec({"zones": "1"})]
)
def test_class_that_is_not_there_or_cannot_be_read_lays_nothing_down(raw: dict[str, Any] | None) -> None:
    assert terms("gold", spec_of(raw)) == Terms(owner="KaitoNodeClass gold")


@pytest.mark.parametrize("name", ["gold", "default"])
def test_class_that_cannot_be_read_is_not_ready_whatever_its_condition_says(name: str) -> None:
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": ""}
    raw = {"metadata": {"name": name}, "spec": {"maxPods": 5}, "status": {"conditions": [ready]}}
    told = problem(name, raw)
    assert told is not None
    assert told.reason == "NodeClassNotReady"
    assert told.message == (
        f"KaitoNodeClass {name} is not Ready: spec.maxPods: Input should be greater than or equal to 10"
    )


CARRIED = {"gpu-provisioner.kaito.sh/device-plugin": "Ignored"}
IGNORED, EXPECTED = of_spec({"devicePlugin": "Ignored"}), of_spec({"devicePlugin": "Expected"})


@pytest.mark.parametrize(
    ("annotations", "raw", "ignores"),
    [
        ({}, None, False),
        ({}, EXPECTED, False),
        ({}, of_spec({}), False),
        ({}, IGNORED, True),
        # As it says now.
        (CARRIED, EXPECTED, False),
        # As it said when the claim was launched.
        (CARRIED, None, True),
        (CARRIED, of_spec({}, deletionTimestamp="2026-11-21T04:34:24Z"), True),
        (CARRIED, of_spec({"devicePlugin": "Perhaps"}), True),
    ],
)
def test_device_plugin_is_expected_as_the_class_says_or_last_said(
    annotations: dict[str, str], raw: dict[str, Any] | None, ignores: bool
) -> None:
    assert ignores_gpus(claim(annotations=annotations), raw) is ignores


@pytest.mark.parametrize(
    ("annotations", "raw", "written"),
    [
        ({}, None, {}),
        ({}, EXPECTED, {}),
        ({}, IGNORED, CARRIED),
        (CARRIED, EXPECTED, {"gpu-provisioner.kaito.sh/device-plugin": "Expected"}),
    ],
)
def test_claim_carries_from_its_launch_on_what_it_needs_of_a_class_that_may_go(
    annotations: dict[str, str], raw: dict[str, Any] | None, written: dict[str, str]
) -> None:
    assert launch_annotations(claim(annotations=annotations), spec_of(raw)) == written
