"""Delays: a size whose nodes do not register is asked for later each time, until one registers."""

from datetime import timedelta

from provisioner.apis.conditions import LAUNCHED
from provisioner.nodeclaim.delays import Delay, SizeDelays
from provisioner.nodeclaim.lifecycle import reconcile
from provisioner.nodeclaim.view import CreatePool
from tests.unit.builders import A100, NOW, claim, recorded_claim, view

MINUTE = timedelta(minutes=1)


def delays() -> SizeDelays:
    return SizeDelays(on_forgotten=lambda: None)


def test_wait_doubles_up_to_half_an_hour() -> None:
    known, now, waits = delays(), NOW, []
    for _ in range(8):
        known.failed(A100, now=now)
        delay = known.of(A100, now=now)
        assert delay is not None
        waits.append((delay.until - now) // MINUTE)
        now = delay.until
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_wait_ends_at_its_time_and_is_remembered_for_the_next() -> None:
    known = delays()
    known.failed(A100, now=NOW)
    assert known.of(A100, now=NOW + MINUTE - timedelta(seconds=1)) == Delay(failures=1, until=NOW + MINUTE)
    assert known.of(A100, now=NOW + MINUTE) is None


def test_failures_of_the_same_time_count_once() -> None:
    known = delays()
    for second in range(50):
        known.failed(A100, now=NOW + timedelta(seconds=second))
    assert known.of(A100, now=NOW) == Delay(failures=1, until=NOW + MINUTE)


def test_sizes_are_apart_whatever_their_spelling() -> None:
    known = delays()
    known.failed(A100, now=NOW)
    assert known.of(A100.lower(), now=NOW) is not None
    assert known.of("Standard_NC4as_T4_v3", now=NOW) is None


def test_size_that_is_not_known_is_not_remembered() -> None:
    known = delays()
    known.failed("", now=NOW)
    assert known.of("", now=NOW) is None


def test_success_forgets_and_wakes_those_who_wait() -> None:
    told: list[str] = []
    known = SizeDelays(on_forgotten=lambda: told.append("forgotten"))
    known.succeeded(A100)
    assert told == []
    known.failed(A100, now=NOW)
    known.succeeded(A100.upper())
    assert (told, known.of(A100, now=NOW)) == (["forgotten"], None)
    known.failed(A100, now=NOW)
    assert known.of(A100, now=NOW) == Delay(failures=1, until=NOW + MINUTE)


def test_claim_waits_for_its_size_and_says_so() -> None:
    waiting = view(claim(), size_delay=Delay(failures=3, until=NOW + 4 * MINUTE))
    step = reconcile(waiting)
    assert (step.azure, step.metadata) == (None, None)
    assert step.again_after == 4 * MINUTE
    assert step.status is not None
    (told,) = [entry for entry in step.status["conditions"] if entry["type"] == LAUNCHED]
    assert (told["status"], told["reason"]) == ("Unknown", "NodesNotRegistering")
    assert told["message"].startswith(f"Nodes of {A100} do not register (failures in a row: 3); the next is ")
    assert step.notices == ()
    again = reconcile(view(recorded_claim(status=step.status)))
    assert isinstance(again.azure, CreatePool)
