"""The event recorder: says each thing once, waits for nobody, fails nobody."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from provisioner.kube.errors import Conflict, Forbidden, Unavailable
from provisioner.kube.events import DEDUPE_WINDOW, EventRecorder, ObjectRef
from tests.unit.virtual_time import now, virtual_time

CLAIM = ObjectRef(kind="NodeClaim", name="w1", uid="uid-1", api_version="karpenter.sh/v1")
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Sink:
    """The API server's events, with an error to raise and a time to take."""

    def __init__(self) -> None:
        self.events: dict[tuple[str, str], dict[str, Any]] = {}
        self.error: Exception | None = None
        self.takes = 0.0
        self.calls = 0

    async def _enter(self) -> None:
        self.calls += 1
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error

    async def get_event(self, namespace: str, name: str) -> dict[str, Any] | None:
        await self._enter()
        return self.events.get((namespace, name))

    async def create_event(self, body: Mapping[str, Any]) -> dict[str, Any]:
        await self._enter()
        key = (body["metadata"]["namespace"], body["metadata"]["name"])
        if key in self.events:
            raise Conflict("exists", status=409, reason="AlreadyExists")
        self.events[key] = dict(body)
        return self.events[key]

    async def patch_event(self, namespace: str, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        await self._enter()
        self.events[namespace, name].update(patch)
        return self.events[namespace, name]

    @property
    def messages(self) -> list[str]:
        return [event["message"] for event in self.events.values()]


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
async def test_recording_does_not_wait_and_keeps_the_order() -> None:
    sink = Sink()
    sink.takes = 0.5
    async with make(sink) as recorder:
        for number in range(8):
            recorder.record(CLAIM, type="Normal", reason="R", message=f"{number}")
        assert now() == 0
    assert sink.messages == [f"{number}" for number in range(8)]
    assert now() == 4


@pytest.mark.parametrize("error", [Forbidden("no", status=403), Unavailable("no"), ValueError("a mistake")])
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
            for number in range(1500):
                recorder.record(CLAIM, type="Normal", reason="R", message=f"{number}")
        assert len(sink.events) == 1000

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
    assert "could not be written" in caplog.text


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
