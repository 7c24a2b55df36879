"""Queue, reflector and journal of the fake nodes: what may come in any order and must come out right."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.nodes.api import ApiError, KubeApi, Object
from fakes.nodes.clock import SimClock
from fakes.nodes.journal import Journal, What
from fakes.nodes.reflector import Reflector
from fakes.nodes.workqueue import WorkQueue

DEADLINE = 5.0


class Recorder:
    """A handler that notes what it is called with."""

    def __init__(self, answer: Callable[[str], float | None] = lambda _: None) -> None:
        self.calls: list[str] = []
        self.running = 0
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._answer = answer
        self._news = asyncio.Condition()

    async def __call__(self, key: str) -> float | None:
        self.running += 1
        self.most = max(self.most, self.running)
        self.calls.append(key)
        async with self._news:
            self._news.notify_all()
        try:
            await self.gate.wait()
            return self._answer(key)
        finally:
            self.running -= 1

    async def until_calls(self, count: int) -> None:
        async with self._news, asyncio.timeout(DEADLINE):
            await self._news.wait_for(lambda: len(self.calls) >= count)


class TestWorkQueue:
    @staticmethod
    async def drive(queue: WorkQueue, steps: Callable[[], Any]) -> None:
        task = asyncio.create_task(queue.run())
        try:
            await steps()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def test_a_key_added_while_it_is_handled_is_handled_once_more_and_never_twice_at_a_time(self) -> None:
        handler = Recorder()
        queue = WorkQueue(handler, concurrency=4)

        async def steps() -> None:
            handler.gate.clear()
            queue.add("a")
            await handler.until_calls(1)
            queue.add("a")
            queue.add("a")
            queue.add("b")
            await handler.until_calls(2)
            assert handler.calls == ["a", "b"]
            handler.gate.set()
            await handler.until_calls(3)

        await self.drive(queue, steps)
        assert handler.calls == ["a", "b", "a"]

    async def test_the_earliest_of_several_times_wins(self) -> None:
        handler = Recorder()
        queue = WorkQueue(handler, concurrency=1)

        async def steps() -> None:
            queue.add("late", after=60)
            queue.add("late", after=0.02)
            queue.add("late", after=30)
            queue.add("soon")
            await handler.until_calls(2)

        await self.drive(queue, steps)
        assert handler.calls == ["soon", "late"]

    async def test_no_more_keys_are_handled_at_a_time_than_allowed(self) -> None:
        handler = Recorder()
        queue = WorkQueue(handler, concurrency=2)

        async def steps() -> None:
            handler.gate.clear()
            for key in "abcd":
                queue.add(key)
            await handler.until_calls(2)
            handler.gate.set()
            await handler.until_calls(4)

        await self.drive(queue, steps)
        assert handler.most == 2

    async def test_a_refusal_is_retried_and_a_wish_to_come_again_is_granted(self) -> None:
        script: list[Exception | float] = [ApiError(409, "Conflict", ""), ConnectionResetError(), 0.01]
        answers = iter(script)

        def answer(_: str) -> float | None:
            value = next(answers, None)
            if isinstance(value, Exception):
                raise value
            return value

        handler = Recorder(answer)
        queue = WorkQueue(handler, concurrency=1)

        async def steps() -> None:
            queue.add("a")
            await handler.until_calls(4)

        await self.drive(queue, steps)
        assert handler.calls == ["a"] * 4

    async def test_a_bug_ends_the_queue(self) -> None:
        def answer(_: str) -> float | None:
            raise KeyError("bug")

        queue = WorkQueue(Recorder(answer), concurrency=1)
        queue.add("a")
        with pytest.raises(ExceptionGroup) as error:
            async with asyncio.timeout(DEADLINE):
                await queue.run()
        assert error.group_contains(KeyError, match="bug")


def item(name: str, version: int, *, uid: str = "u", **metadata: Any) -> Object:
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": str(version), **metadata}}


class ScriptedApi(KubeApi):
    """Answers lists and watches from a script; at its end it hangs. An exception in it is raised."""

    def __init__(self, *script: Any) -> None:
        self._script = list(script)
        self.watched_from: list[str] = []
        self.done = asyncio.Event()

    async def call(self, *_: Any, **__: Any) -> Object:
        answer = await self._next()
        version, *items = answer
        return {"metadata": {"resourceVersion": str(version)}, "items": items}

    async def watch(self, path: str, *, version: str, seconds: int) -> AsyncIterator[tuple[str, Object]]:
        self.watched_from.append(version)
        for event in await self._next():
            if isinstance(event, Exception):
                raise event
            yield event

    async def _next(self) -> Any:
        if not self._script:
            self.done.set()
            await asyncio.Event().wait()
        entry = self._script.pop(0)
        if isinstance(entry, Exception):
            raise entry
        return entry


class TestReflector:
    @staticmethod
    async def play(*script: Any, put: Object | None = None) -> tuple[list[str], Reflector, ScriptedApi]:
        changes: list[str] = []

        def on_change(key: str, old: Object | None, new: Object | None) -> None:
            changes.append(f"{'~' if old and new else '+' if new else '-'}{key}")

        api = ScriptedApi(*script)
        reflector = Reflector(api, "/things", on_change=on_change)
        if put is not None:
            reflector.put(put)
        task = asyncio.create_task(reflector.run())
        async with asyncio.timeout(DEADLINE):
            await api.done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return changes, reflector, api

    async def test_list_and_watch_tell_each_change_once(self) -> None:
        events = [("ADDED", item("b", 6)), ("MODIFIED", item("a", 7)), ("DELETED", item("b", 8))]
        changes, reflector, api = await self.play((5, item("a", 3)), events)
        assert changes == ["+a", "+b", "~a", "-b"]
        assert set(reflector.keys()) == {"a"}
        assert api.watched_from == ["5", "8"]

    async def test_a_bookmark_moves_the_watch_and_changes_nothing(self) -> None:
        changes, _, api = await self.play((5,), [("BOOKMARK", item("", 9))])
        assert changes == []
        assert api.watched_from == ["5", "9"]

    async def test_what_vanished_during_a_gap_is_noticed_by_the_next_list(self) -> None:
        gone = ApiError(410, "Expired", "too old")
        changes, reflector, _ = await self.play((5, item("a", 3), item("b", 4)), [gone], (9, item("b", 4)))
        assert changes == ["+a", "+b", "-a"]
        assert set(reflector.keys()) == {"b"}

    async def test_an_outage_is_survived(self) -> None:
        down = ConnectionRefusedError()
        changes, _, _ = await self.play(down, (5, item("a", 3)), [down], down, (6, item("a", 3)))
        assert changes == ["+a"]

    async def test_an_own_write_is_not_undone_by_older_news(self) -> None:
        own = item("a", 7, labels={"own": "write"})
        events = [("ADDED", item("a", 6)), ("MODIFIED", item("a", 7))]
        changes, reflector, _ = await self.play((5,), events, put=own)
        assert changes == ["+a"]
        assert reflector.get("a") == own

    async def test_the_end_of_a_predecessor_does_not_end_its_successor(self) -> None:
        changes, reflector, _ = await self.play(
            (5,), [("DELETED", item("a", 6, uid="old"))], put=item("a", 7, uid="new")
        )
        assert changes == ["+a"]
        assert reflector.get("a") is not None


class TestJournal:
    async def test_waiting_finds_what_was_and_what_will_be(self) -> None:
        journal = Journal(SimClock())
        journal.record(What.READY, "aks-gpu1-1")
        assert (await journal.wait(What.READY, node="aks-gpu1-*")).node == "aks-gpu1-1"
        waiting = asyncio.create_task(journal.wait(What.GPUS, node="*-2"))
        await asyncio.sleep(0)
        journal.record(What.GPUS, "aks-gpu1-1", "8")
        journal.record(What.GPUS, "aks-gpu1-2", "4")
        async with asyncio.timeout(DEADLINE):
            assert (await waiting).detail == "4"
        assert [entry.node for entry in journal.happenings] == ["aks-gpu1-1", "aks-gpu1-1", "aks-gpu1-2"]


class TestClock:
    def test_simulated_time_runs_faster_by_the_scale(self) -> None:
        real = iter([100.0, 101.0, 103.0])
        clock = SimClock(scale=60.0, source=lambda: next(real))
        assert [clock.now(), clock.now()] == [60.0, 180.0]
        assert clock.real(30.0) == 0.5
        assert clock.real(-1.0) == 0.0

    @pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
    def test_a_scale_that_is_no_speed_is_refused(self, scale: float) -> None:
        with pytest.raises(ValueError, match="scale"):
            SimClock(scale=scale)


class TestKubeconfig:
    def test_a_kubeconfig_without_tls_or_token_is_enough(self, tmp_path: Path) -> None:
        path = tmp_path / "kubeconfig"
        config = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "local", "user": "me"}}],
            "clusters": [{"name": "local", "cluster": {"server": "http://127.0.0.1:1/"}}],
            "users": [{"name": "me"}],
        }
        path.write_text(yaml.safe_dump(config))

        async def get() -> None:
            async with KubeApi(path) as api:
                await api.call("GET", "/version")

        # Port 1 of loopback refuses: the file has been understood as far as the connection.
        with pytest.raises(OSError, match=r"127\.0\.0\.1"):
            asyncio.run(get())
