"""What a class says is read whole or not at all, whatever it is, and the field that is wrong is named."""

from decimal import Decimal
from typing import Any

import pytest

from provisioner.apis.nodeclass import DEFAULTS, read_spec
from provisioner.apis.taints import Taint
from tests.node_classes import ACCEPTED, FULL, HARMLESS, REFUSED


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED)
def test_what_the_schema_takes_is_taken(spec: dict[str, Any]) -> None:
    assert read_spec(spec)[1] == ""


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - HARMLESS))
def test_what_the_schema_refuses_is_refused_and_says_nothing(name: str) -> None:
    _, raw = REFUSED[name]
    spec, error = read_spec(raw)
    assert spec == DEFAULTS
    field = next(iter(raw))
    assert field in error


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_harms_nobody_is_taken(name: str) -> None:
    _, raw = REFUSED[name]
    assert read_spec(raw)[1] == ""


def test_every_field_is_read() -> None:
    spec, error = read_spec(FULL)
    assert error == ""
    assert {name for name, value in spec if value == getattr(DEFAULTS, name)} == set()
    assert spec.taints == (Taint(key="example.com/gold", value="yes", effect="NoSchedule"),)
    assert spec.spot.max_price == Decimal("1.25")


@pytest.mark.parametrize("spec", [None, {}, {"spot": None, "tags": None, "zones": None}, {"of a later version": {}}])
def test_what_is_left_out_is_decided_as_without_a_class(spec: Any) -> None:
    assert read_spec(spec) == (DEFAULTS, "")


# What no schema lets through, and where the text has to lead.
HOSTILE: tuple[tuple[Any, str], ...] = (
    ("text", "spec: must be an object"),
    ([], "spec: must be an object"),
    ({"spot": "cheap"}, "spec.spot: must be an object"),
    ({"tags": ["a"]}, "spec.tags: must be an object"),
    ({"labels": "team"}, "spec.labels: must be an object"),
    ({"taints": "team"}, "spec.taints: must be a list"),
    ({"taints": ["team"]}, "spec.taints.0: must be an object"),
    ({"zones": "12"}, "spec.zones: must be a list"),
    ({"zones": [1]}, "spec.zones.0:"),
    ({"zones": ["1\n"]}, "spec.zones.0:"),
    ({"zones": [str(n % 9 + 1) for n in range(10)]}, "spec.zones:"),
    ({"maxPods": "30"}, "spec.maxPods:"),
    ({"maxPods": True}, "spec.maxPods:"),
    ({"maxPods": 30.5}, "spec.maxPods:"),
    ({"maxPods": 10**400}, "spec.maxPods:"),
    ({"maxPricePerHour": True}, "spec.maxPricePerHour:"),
    ({"maxPricePerHour": float("nan")}, "spec.maxPricePerHour:"),
    ({"maxPricePerHour": float("inf")}, "spec.maxPricePerHour:"),
    ({"maxPricePerHour": 10**5000}, "spec.maxPricePerHour:"),
    ({"spot": {"maxPrice": 0.000001}}, "spec.spot.maxPrice: must have 5 decimal places"),
    ({"osSKU": {"a": "b"}}, "spec.osSKU:"),
    ({"gpuInstanceProfile": "mig1g"}, "spec.gpuInstanceProfile:"),
    ({"tags": {"a": 1}}, "spec.tags.a:"),
    ({"tags": {"a\x00b": ""}}, "spec.tags: the name"),
    ({"tags": {"env": "", "ENV": ""}}, "spec.tags: 'ENV' is there twice"),
    ({"labels": {"a" * 1_000_000: ""}}, "spec.labels: 'aaa"),
    ({"labels": {f"{'a.' * 50_000}b/c": ""}}, "spec.labels: 'a.a"),
    ({"labels": {str(n): "" for n in range(51)}}, "spec.labels: there are 51"),
    ({"taints": [{"key": str(n), "effect": "NoSchedule"} for n in range(51)]}, "spec.taints: there are 51"),
    ({"vnetSubnetID": "/subscriptions/" + "a" * 100_000}, "spec.vnetSubnetID: must be"),
)


@pytest.mark.parametrize(("spec", "said"), HOSTILE, ids=[said for _, said in HOSTILE])
def test_field_that_is_wrong_is_named_in_a_text_of_bounded_length(spec: Any, said: str) -> None:
    read, error = read_spec(spec)
    assert read == DEFAULTS
    assert error.startswith(said)
    assert len(error) < 400


@pytest.mark.parametrize(
    ("fields", "cap"),
    [
        ({}, None),
        ({"spot": {"maxPrice": 2}}, "2"),
        ({"maxPricePerHour": 3}, "3"),
        ({"maxPricePerHour": 3, "spot": {"maxPrice": 2}}, "2"),
        ({"maxPricePerHour": 1.5, "spot": {"maxPrice": 2}}, "1.5"),
    ],
)
def test_spot_vm_costs_no_more_than_either_cap(fields: dict[str, Any], cap: str | None) -> None:
    assert read_spec(fields)[0].spot_max_price == (Decimal(cap) if cap else None)
