"""Whose turn it is to be replaced."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.conditions import INITIALIZED, LAUNCHED, READY, REGISTERED
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.nodeclaim.replacements import QUIET, Replacements
from tests.unit.builders import NOW, claim, condition, reached

MINUTE = timedelta(minutes=1)
FOREIGN = {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}


def ready(name: str, **changes: Any) -> NodeClaim:
    status = {"conditions": reached(LAUNCHED, REGISTERED, INITIALIZED, READY)}
    return claim(name, **{"uid": f"uid-of-{name}", "status": status, **changes})


MINE = ready("mine")


def waits(replacements: Replacements, *others: NodeClaim, now: datetime = NOW) -> bool:
    return replacements.is_anothers_turn(MINE, claims=[MINE, *others], now=now)


@pytest.mark.parametrize(
    ("other", "waiting"),
    [
        (ready("other"), False),
        (ready("other", finalizers=(names.TERMINATION_FINALIZER,), deleted=NOW), True),
        (ready("other", status={}), True),
        (ready("other", status={"conditions": [condition("Launched", "False", "QuotaExceeded")]}), True),
        (ready("other", status={}, nodeClassRef=FOREIGN, labels={}), False),
    ],
)
def test_a_claim_waits_while_another_of_ours_goes_or_has_no_node(other: NodeClaim, waiting: bool) -> None:
    assert waits(Replacements(now=NOW - MINUTE), other) is waiting


def test_a_claim_does_not_wait_for_itself() -> None:
    lame = ready("mine", status={})
    assert not Replacements(now=NOW - MINUTE).is_anothers_turn(lame, claims=[lame], now=NOW)


def test_between_a_claim_that_is_gone_and_its_successor_nobody_is_next() -> None:
    replacements = Replacements(now=NOW - MINUTE)
    assert waits(replacements, ready("other", finalizers=("x",), deleted=NOW))
    gone = NOW + timedelta(minutes=10)
    assert waits(replacements, ready("other", finalizers=("x",), deleted=NOW), now=gone)
    assert waits(replacements, now=gone + QUIET - timedelta(seconds=1))
    assert not waits(replacements, now=gone + QUIET)


def test_whoever_begins_has_the_turn_at_once() -> None:
    replacements = Replacements(now=NOW - MINUTE)
    assert not waits(replacements, ready("other"))
    replacements.begin(now=NOW)
    assert waits(replacements, ready("other"))


def test_a_restart_waits_as_if_one_was_under_way() -> None:
    assert waits(Replacements(now=NOW), ready("other"))
    assert not waits(Replacements(now=NOW), ready("other"), now=NOW + QUIET)
