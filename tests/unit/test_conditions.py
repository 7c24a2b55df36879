"""The arithmetic of Karpenter's status conditions, which clients compare literally."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.apis.conditions import (
    DEPENDENTS,
    INITIALIZED,
    LAUNCHED,
    MAX_MESSAGE,
    READY,
    REGISTERED,
    Condition,
    ConditionSet,
    parse_conditions,
)
from tests.unit.builders import CREATED, condition, reached

LATER = CREATED + timedelta(minutes=5)


def conditions(
    *stored: dict[str, Any], generation: int = 1, now: datetime = LATER, deleting: bool = False
) -> ConditionSet:
    existing = parse_conditions(list(stored), fallback=CREATED)
    return ConditionSet(existing, generation=generation, created=CREATED, now=now, deleting=deleting)


def of(result: tuple[Condition, ...], kind: str) -> Condition:
    return next(condition for condition in result if condition.type == kind)


def root(working: ConditionSet) -> tuple[str, str, str]:
    ready = of(working.result(), READY)
    return ready.status, ready.reason, ready.message


# First touch


def test_object_without_status_awaits_reconciliation_since_its_creation() -> None:
    result = conditions().result()
    for kind in DEPENDENTS:
        assert of(result, kind).to_dict() == {
            "type": kind,
            "status": "Unknown",
            "reason": "AwaitingReconciliation",
            "message": "object is awaiting reconciliation",
            "lastTransitionTime": "2026-11-21T04:34:24Z",
            "observedGeneration": 1,
        }
    assert of(result, READY).last_transition == CREATED


def test_missing_condition_is_added_and_those_that_are_there_stay() -> None:
    stored = condition(LAUNCHED, "True", LAUNCHED, since=LATER)
    result = conditions(stored).result()
    assert of(result, LAUNCHED).to_dict() == stored
    assert of(result, REGISTERED).reason == "AwaitingReconciliation"


def test_moment_is_written_in_utc_and_whole_seconds() -> None:
    elsewhere = CREATED.replace(microsecond=999_999).astimezone(timezone(timedelta(hours=9)))
    working = ConditionSet((), generation=1, created=elsewhere, now=LATER)
    assert of(working.result(), LAUNCHED).to_dict()["lastTransitionTime"] == "2026-11-21T04:34:24Z"


# One condition


def test_transition_time_moves_with_the_status_alone() -> None:
    working = conditions()
    working.set_unknown(LAUNCHED, reason="CreatingAgentPool", message="Azure is creating it.")
    assert of(working.result(), LAUNCHED).last_transition == CREATED
    working.set_true(LAUNCHED)
    assert of(working.result(), LAUNCHED).last_transition == LATER


def test_true_has_its_type_for_a_reason_and_no_message() -> None:
    working = conditions()
    working.set_true(LAUNCHED)
    launched = working.get(LAUNCHED)
    assert launched is not None
    assert (launched.status, launched.reason, launched.message) == ("True", "Launched", "")
    assert working.is_true(LAUNCHED)
    assert not working.is_true("Drifted")
    assert working.get("Drifted") is None


def test_condition_that_has_nothing_to_say_is_taken_out_but_none_that_ready_rests_on() -> None:
    working = conditions()
    working.set_true("Drifted", reason="ImageDrift")
    working.clear("Drifted")
    working.clear("Drifted")
    assert working.get("Drifted") is None
    for kind in (*DEPENDENTS, READY):
        with pytest.raises(ValueError, match="is never taken out"):
            working.clear(kind)


def test_condition_is_set_at_the_present_generation() -> None:
    working = conditions(*reached(LAUNCHED), generation=4)
    working.set_unknown(REGISTERED, reason="NodeNotFound", message="Node not registered with cluster")
    result = working.result()
    assert of(result, REGISTERED).observed_generation == 4
    assert of(result, LAUNCHED).observed_generation == 1


def test_condition_without_a_reason_cannot_be_set() -> None:
    with pytest.raises(ValueError, match="condition Launched needs a reason"):
        conditions().set_false(LAUNCHED, reason="", message="no")


def test_condition_that_somebody_wrote_without_a_reason_gets_one_when_it_is_confirmed() -> None:
    working = conditions(condition(LAUNCHED, "True", ""))
    working.observe(LAUNCHED)
    assert of(working.result(), LAUNCHED).reason == "Launched"


@pytest.mark.parametrize(("length", "kept"), [(MAX_MESSAGE, MAX_MESSAGE), (MAX_MESSAGE + 1, MAX_MESSAGE - 3)])
def test_message_is_cut_at_its_end(length: int, kept: int) -> None:
    working = conditions()
    working.set_unknown(LAUNCHED, reason="AzureError", message="x" * length)
    message = of(working.result(), LAUNCHED).message
    assert message == "x" * kept + "..." * (length > MAX_MESSAGE)


# The root


@pytest.mark.parametrize(
    ("launched", "registered", "initialized", "expected"),
    [
        ("True", "True", "True", ("True", "Ready", "")),
        ("True", "True", "Unknown", ("Unknown", "ReconcilingDependents", "Initialized=Unknown")),
        (
            "Unknown",
            "Unknown",
            "Unknown",
            ("Unknown", "ReconcilingDependents", "Launched=Unknown, Registered=Unknown, Initialized=Unknown"),
        ),
        (
            "False",
            "Unknown",
            "Unknown",
            ("False", "UnhealthyDependents", "Launched=False, Registered=Unknown, Initialized=Unknown"),
        ),
        ("True", "False", "True", ("False", "UnhealthyDependents", "Registered=False")),
    ],
)
def test_root_follows_its_dependents(
    launched: str, registered: str, initialized: str, expected: tuple[str, str, str]
) -> None:
    states = {LAUNCHED: launched, REGISTERED: registered, INITIALIZED: initialized}
    assert root(conditions(*(condition(kind, state, "Why") for kind, state in states.items()))) == expected


def test_root_names_the_newest_transition_first() -> None:
    working = conditions(
        condition(LAUNCHED, "Unknown", "Why", since=CREATED + timedelta(minutes=1)),
        condition(REGISTERED, "Unknown", "Why", since=CREATED + timedelta(minutes=3)),
        condition(INITIALIZED, "Unknown", "Why", since=CREATED + timedelta(minutes=2)),
    )
    assert root(working)[2] == "Registered=Unknown, Initialized=Unknown, Launched=Unknown"


def test_condition_of_an_older_generation_counts_as_not_known() -> None:
    assert root(conditions(*reached(*DEPENDENTS), generation=2)) == (
        "Unknown",
        "ReconcilingDependents",
        "Launched=True, Registered=True, Initialized=True",
    )


def test_false_of_an_older_generation_does_not_fail_the_root() -> None:
    stored = [condition(LAUNCHED, "False", "QuotaExceeded"), *reached(REGISTERED, INITIALIZED, generation=2)]
    assert root(conditions(*stored, generation=2)) == ("Unknown", "ReconcilingDependents", "Launched=False")


def test_confirming_what_was_decided_brings_the_root_back_at_a_new_generation() -> None:
    working = conditions(*reached(*DEPENDENTS, READY), generation=2)
    for kind in DEPENDENTS:
        working.observe(kind)
    ready = of(working.result(), READY)
    assert (ready.status, ready.observed_generation) == ("True", 2)


@pytest.mark.parametrize("state", ["True", "False", "Unknown"])
def test_root_does_not_depend_on_other_conditions(state: str) -> None:
    assert root(conditions(*reached(*DEPENDENTS), condition("Drifted", state, "Why")))[0] == "True"


def test_root_keeps_its_transition_time_while_its_status_stays() -> None:
    ready = condition(READY, "Unknown", "ReconcilingDependents", "Launched=Unknown")
    working = conditions(*reached(LAUNCHED), ready)
    result = of(working.result(), READY)
    assert (result.message, result.last_transition) == ("Registered=Unknown, Initialized=Unknown", CREATED)


# Deletion


def test_deletion_counts_every_condition_as_of_the_new_generation() -> None:
    working = conditions(*reached(*DEPENDENTS, "Drifted", READY), generation=2, deleting=True)
    working.set_true("InstanceTerminating")
    assert {condition.observed_generation for condition in working.result()} == {2}


def test_ready_object_stays_ready_while_it_is_being_deleted() -> None:
    working = conditions(*reached(*DEPENDENTS, READY), generation=2, deleting=True)
    ready = of(working.result(), READY)
    assert (ready.status, ready.reason, ready.last_transition) == ("True", "Ready", CREATED)


# Order and storage


def test_conditions_stand_by_transition_with_the_root_last() -> None:
    working = conditions()
    working.set_true(LAUNCHED)
    assert [c.type for c in working.result()] == [REGISTERED, INITIALIZED, LAUNCHED, READY]


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "Ready",
        [None, 7, "Ready"],
        [{"type": READY, "status": "Maybe", "reason": "R"}],
        [{"status": "True", "reason": "R"}],
        [{"type": 1, "status": "True"}],
    ],
)
def test_what_is_no_condition_is_dropped(stored: object) -> None:
    assert parse_conditions(stored, fallback=CREATED) == ()


def test_condition_with_holes_is_read_with_what_it_has() -> None:
    (read,) = parse_conditions([{"type": READY, "status": "True", "lastTransitionTime": "soon"}], fallback=CREATED)
    assert read == Condition(
        type=READY, status="True", reason="", message="", last_transition=CREATED, observed_generation=0
    )


_ANY = st.builds(
    condition,
    st.sampled_from([*DEPENDENTS, READY, "Drifted"]),
    st.sampled_from(["True", "False", "Unknown"]),
    st.just("Why"),
    st.text(max_size=5),
    since=st.integers(0, 5).map(lambda minutes: CREATED + timedelta(minutes=minutes)),
    generation=st.integers(1, 2),
)


@settings(deadline=None)
@given(stored=st.lists(_ANY, unique_by=lambda item: str(item["type"])), deleting=st.booleans())
def test_written_conditions_are_read_back_and_change_nothing(stored: list[dict[str, Any]], deleting: bool) -> None:
    first = conditions(*stored, generation=2, deleting=deleting).result()
    written = [condition.to_dict() for condition in first]
    second = conditions(*written, generation=2, now=LATER + timedelta(hours=1), deleting=deleting).result()
    assert second == first
