"""The event recorder: says each thing once, waits for nobody, fails nobody."""

import asyncio
import functools
import itertools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from provisioner.kube.errors import Conflict, Forbidden, Rejected, Unavailable
from provisioner.kube.events import DEDUPE_WINDOW, EventRecorder, ObjectRef
from tests.unit.virtual_time import now, virtual_time

CLAIM = ObjectRef(kind="NodeClaim", name="w1", uid="uid-1", api_version="karpenter.sh/v1")
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Sink:
    """The API server's events, with an error to raise, before or after it has written, and a time to take."""

    def __init__(self) -> None:
        self.events: dict[tuple[str, str], dict[str, Any]] = {}
        self.error: Exception | None = None
        # Errors of the next calls: None where a call does not fail.
        self.errors: list[Exception | None] = []
        self.late_errors: list[Exception | None] = []
        self.takes = 0.0
        self.calls = 0
        self.called_at: list[float] = []
        self.at_once = 0
        self.most_at_once = 0

    async def _enter(self) -> None:
        self.calls += 1
        self.called_at.append(now())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.takes)
        self.at_once -= 1
        error = self.errors.pop(0) if self.errors else self.error
        if error is not None:
            raise error

    def _written(self) -> None:
        error = self.late_errors.pop(0) if self.late_errors else None
        if error is not None:
            raise error

    async def get_event(self, namespace: str, name: str) -> dict[str, Any] | None:
        await self._enter()
        present = self.events.get((namespace, name))
        # As it is now: whoever counts it up a moment later may not see what another has done meanwhile.
        return None if present is None else dict(present)

    async def create_event(self, body: Mapping[str, Any]) -> dict[str, Any]:
        await self._enter()
        key = (body["metadata"]["namespace"], body["metadata"]["name"])
        if key in self.events:
            raise Conflict("exists", status=409, reason="AlreadyExists")
        self.events[key] = dict(body)
        self._written()
        return self.events[key]

    async def patch_event(self, namespace: str, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        await self._enter()
        self.events[namespace, name].update(patch)
        self._written()
        return self.events[namespace, name]

    @property
    def messages(self) -> list[str]:
        return [event["message"] for event in self.events.values()]

    @property
    def messages_by_object(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for event in self.events.values():
            found[event["involvedObject"]["uid"]].append(event["message"])
        return dict(found)


def claims(count: int) -> list[ObjectRef]:
    return [replace(CLAIM, name=f"w{number}", uid=f"uid-of-{number}") for number in range(count)]


def make(sink: Sink) -> EventRecorder:
    return EventRecorder(sink, clock=lambda: START + timedelta(seconds=now()), instance="gpu-provisioner-0")


@virtual_time
async def test_event_is_complete() -> None:
    sink = Sink()
    async with make(sink) as recorder:
        recorder.record(CLAIM, type="Warning", reason="QuotaExceeded", message="0 of 24 cores left")
    [((namespace, name), event)] = sink.events.items()
    assert namespace == "default"
    assert name.startswith("w1.")
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "involvedObject": {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": "w1", "uid": "uid-1"},
        "type": "Warning",
        "reason": "QuotaExceeded",
        "message": "0 of 24 cores left",
        "source": {"component": "gpu-provisioner"},
        "reportingComponent": "gpu-provisioner",
        "reportingInstance": "gpu-provisioner-0",
        "firstTimestamp": "2026-01-02T03:04:05Z",
        "lastTimestamp": "2026-01-02T03:04:05Z",
        "count": 1,
    }


@virtual_time
async def test_namespaced_object_has_its_events_beside_it() -> None:
    sink = Sink()
    async with make(sink) as recorder:
        recorder.record(replace(CLAIM, namespace="apps"), type="Normal", reason="R", message="m")
    [((namespace, _), event)] = sink.events.items()
    assert namespace == "apps"
    assert event["involvedObject"]["namespace"] == "apps"


@virtual_time
async def test_same_thing_is_said_once_within_the_window() -> None:
    sink = Sink()
    async with make(sink) as recorder:
        for _ in range(12):
            recorder.record(CLAIM, type="Normal", reason="R", message="m")
            await asyncio.sleep(DEDUPE_WINDOW / 12 - 1)
        assert sink.calls == 1
        recorder.record(CLAIM, type="Normal", reason="R", message="another")
        recorder.record(CLAIM, type="Normal", reason="Another", message="m")
        recorder.record(replace(CLAIM, uid="uid-2"), type="Normal", reason="R", message="m")
    assert len(sink.events) == 4


@virtual_time
async def test_repeat_after_the_window_counts_up_even_after_a_restart() -> None:
    sink = Sink()
    async with make(sink) as recorder:
        recorder.record(CLAIM, type="Normal", reason="R", message="m")
        await asyncio.sleep(DEDUPE_WINDOW)
        recorder.record(CLAIM, type="Normal", reason="R", message="m")
    async with make(sink) as recorder:
        recorder.record(CLAIM, type="Normal", reason="R", message="m")
    [event] = sink.events.values()
    assert event["count"] == 3
    assert event["firstTimestamp"] == "2026-01-02T03:04:05Z"
    assert event["lastTimestamp"] == "2026-01-02T03:06:05Z"


@virtual_time
async def test_recording_does_not_wait_and_keeps_the_order_of_what_is_about_one_object() -> None:
    sink = Sink()
    sink.takes = 0.5
    async with make(sink) as recorder:
        for number in range(8):
            recorder.record(CLAIM, type="Normal", reason="R", message=f"{number}")
        assert now() == 0
    assert sink.messages == [f"{number}" for number in range(8)]
    assert now() == 4


@virtual_time
async def test_burst_about_many_objects_is_written_several_at_a_time_and_in_order_for_each() -> None:
    sink = Sink()
    sink.takes = 0.1
    async with make(sink) as recorder:
        for message in ("first", "second"):
            for claim in claims(500):
                recorder.record(claim, type="Normal", reason="R", message=message)
        assert now() == 0
        await recorder.close(timeout=60)
    assert sink.messages_by_object == {claim.uid: ["first", "second"] for claim in claims(500)}
    assert sink.most_at_once == 8
    # One after the other they would take 100 s; an even spread 12.5.
    assert now() < 17


@virtual_time
async def test_same_thing_said_again_before_it_is_written_counts_up_once_each_time() -> None:
    sink = Sink()
    # So slow that without an order two would read the same count.
    sink.takes = 1.7 * DEDUPE_WINDOW
    async with make(sink) as recorder:
        for _ in range(3):
            for claim in claims(3):
                recorder.record(claim, type="Normal", reason="R", message="m")
            await asyncio.sleep(DEDUPE_WINDOW)
        await recorder.close(timeout=24 * 3600)
    assert [event["count"] for event in sink.events.values()] == [3, 3, 3]
    assert {event["lastTimestamp"] for event in sink.events.values()} == {"2026-01-02T03:08:05Z"}


@virtual_time
async def test_pause_for_one_event_does_not_hold_up_most_of_the_others() -> None:
    sink = Sink()
    sink.errors = [Unavailable("busy", status=429, retry_after=4)]
    async with make(sink) as recorder:
        recorder.record(CLAIM, type="Normal", reason="R", message="late")
        await asyncio.sleep(1)
        for claim in claims(80):
            recorder.record(claim, type="Normal", reason="R", message="m")
        await asyncio.sleep(1)
        assert "late" not in sink.messages
        assert len(sink.messages) > 60
    assert len(sink.messages) == 81


# Hiccups of the API server


@pytest.mark.parametrize(
    ("hiccup", "pauses"),
    [
        (Unavailable("overloaded", status=429, retry_after=3), [3, 3, 4]),
        (Unavailable("no leader", status=503), [1, 2, 4]),
        (Unavailable("connection reset", lost=True), [1, 2, 4]),
        (Unavailable("go away", status=429, retry_after=90_000), [60, 60, 60]),
    ],
    ids=["429 with Retry-After", "503", "no answer", "Retry-After of a day"],
)
def test_event_survives_hiccups_and_what_follows_stays_behind_it(
    hiccup: Unavailable, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    @virtual_time
    async def run() -> None:
        sink = Sink()
        sink.errors = [hiccup] * 3
        async with make(sink) as recorder:
            for message in ("first", "second"):
                recorder.record(CLAIM, type="Normal", reason="R", message=message)
            await recorder.close(timeout=600)
        assert sink.messages == ["first", "second"]
        tried = sink.called_at
        assert [later - earlier for earlier, later in itertools.pairwise(tried)] == [*pauses, 0]

    run()
    assert not caplog.text


def test_event_is_given_up_after_five_attempts_and_the_next_has_its_own(caplog: pytest.LogCaptureFixture) -> None:
    @virtual_time
    async def run() -> None:
        sink = Sink()
        sink.errors = [Unavailable("down", status=503)] * 13
        async with make(sink) as recorder:
            for number in range(3):
                recorder.record(CLAIM, type="Normal", reason="R", message=f"{number}")
            await recorder.close(timeout=600)
        assert sink.messages == ["2"]
        assert sink.calls == 5 + 5 + 4

    run()
    assert caplog.text.count("Events are lost") == 1
    assert "down" in caplog.text


@pytest.mark.parametrize("error", [Forbidden("no", status=403), Rejected("nonsense", status=422)])
@virtual_time
async def test_what_the_api_server_will_never_take_is_tried_once(error: Exception) -> None:
    sink = Sink()
    sink.error = error
    async with make(sink) as recorder:
        recorder.record(CLAIM, type="Normal", reason="R", message="m")
    assert sink.calls == 1
    assert now() == 0


@virtual_time
async def test_write_that_was_carried_out_without_an_answer_counts_once() -> None:
    sink = Sink()
    sink.late_errors = [Unavailable("no answer")]
    async with make(sink) as recorder:
        recorder.record(CLAIM, type="Normal", reason="R", message="m")
        await asyncio.sleep(DEDUPE_WINDOW)
        [event] = sink.events.values()
        assert event["count"] == 1
        sink.late_errors = [Unavailable("no answer")]
        recorder.record(CLAIM, type="Normal", reason="R", message="m")
    assert event["count"] == 2
    assert event["lastTimestamp"] == "2026-01-02T03:06:05Z"


@pytest.mark.parametrize("failing", [0, 1, 2], ids=["create", "get", "patch"])
@virtual_time
async def test_counting_up_survives_a_hiccup_of_each_of_its_calls(failing: int) -> None:
    sink = Sink()
    async with make(sink) as recorder:
        recorder.record(CLAIM, type="Normal", reason="R", message="m")
        await asyncio.sleep(DEDUPE_WINDOW)
        sink.errors = [*([None] * failing), Unavailable("busy", status=429, retry_after=1)]
        recorder.record(CLAIM, type="Normal", reason="R", message="m")
    [event] = sink.events.values()
    assert event["count"] == 2


# Losses


@pytest.mark.parametrize("error", [Forbidden("no", status=403), Rejected("no", status=422), ValueError("a mistake")])
def test_failures_are_logged_once_and_stop_nothing(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    @virtual_time
    async def run() -> None:
        sink = Sink()
        sink.error = error
        async with make(sink) as recorder:
            for number in range(5):
                recorder.record(CLAIM, type="Normal", reason="R", message=f"{number}")
            await asyncio.sleep(1)
            sink.error = None
            recorder.record(CLAIM, type="Normal", reason="R", message="heard")
        assert sink.messages == ["heard"]

    run()
    assert caplog.text.count("Events are lost") == 1


def test_flood_is_cut_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    @virtual_time
    async def run() -> None:
        sink = Sink()
        async with make(sink) as recorder:
            for claim in claims(300):
                for number in range(5):
                    recorder.record(claim, type="Normal", reason="R", message=f"{number}")
        assert len(sink.events) == 1000
        async with make(sink) as recorder:
            recorder.record(CLAIM, type="Normal", reason="R", message="there is room again")
        assert "there is room again" in sink.messages

    run()
    assert caplog.text.count("Events are lost") == 1


def test_flush_at_the_end_has_a_deadline(caplog: pytest.LogCaptureFixture) -> None:
    @virtual_time
    async def run() -> None:
        sink = Sink()
        sink.takes = 2.0
        async with make(sink) as recorder:
            for number in range(10):
                recorder.record(CLAIM, type="Normal", reason="R", message=f"{number}")
        assert now() == 5
        assert len(sink.events) == 2
        await recorder.close()

    run()
    assert "8 could not be written" in caplog.text


def test_flush_does_not_wait_for_an_api_server_that_wants_a_pause(caplog: pytest.LogCaptureFixture) -> None:
    @virtual_time
    async def run() -> None:
        sink = Sink()
        sink.error = Unavailable("busy", status=429, retry_after=30)
        async with make(sink) as recorder:
            for claim in claims(20):
                recorder.record(claim, type="Normal", reason="R", message="m")
        assert now() == 5
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run()
    assert "20 could not be written" in caplog.text


@virtual_time
async def test_what_is_said_while_flushing_is_written_too() -> None:
    sink = Sink()
    sink.takes = 1.0
    async with make(sink) as recorder:
        recorder.record(CLAIM, type="Normal", reason="R", message="before")
        for number, claim in enumerate(claims(8)):
            say = functools.partial(recorder.record, claim, type="Normal", reason="R", message="m")
            asyncio.get_running_loop().call_later(0.5 + number / 16, say)
    assert len(sink.events) == 9


@pytest.mark.parametrize("letter", ["x", "é"])
@virtual_time
async def test_long_message_is_cut_at_what_the_api_takes(letter: str) -> None:
    sink = Sink()
    async with make(sink) as recorder:
        recorder.record(CLAIM, type="Normal", reason="R", message=letter * 5000)
        recorder.record(CLAIM, type="Normal", reason="R", message="x" * 1024)
    long, whole = sink.messages
    assert 1020 <= len(long.encode()) <= 1024
    assert long.endswith(letter + "...")
    assert whole == "x" * 1024


@virtual_time
async def test_name_of_an_event_is_a_valid_one_however_long_the_object_s_is() -> None:
    sink = Sink()
    async with make(sink) as recorder:
        recorder.record(replace(CLAIM, name="a" * 229 + "-" + "b" * 23), type="Normal", reason="R", message="m")
    [(_, name)] = sink.events
    assert len(name) <= 253
    assert name.startswith("a" * 229 + ".")
