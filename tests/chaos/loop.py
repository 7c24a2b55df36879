"""An event loop in which time is virtual and chance is a seed: who of those that could run runs next, the seed says.

asyncio promises callbacks in the order in which they were scheduled. A controller that has to be right on any machine
must not lean on that, so here each step is drawn from all that are ready. Nothing else is left to chance: no clock, no
thread, no order of addresses or hashes.
"""

import asyncio
import heapq
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

Action = Callable[[], None]
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Life:
    """One run of a program: what it has begun never goes on once it is dead.

    Whatever a program schedules carries its life with it, as context variables do.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_alive = True
        self._steps_left: int | None = None
        self._writes_left: int | None = None
        self._steps_after_write = 0

    def dies_at_write(self, number: int, *, steps: int) -> None:
        """Let it send so many more writes, and die so many steps after the last: before its answer, or right after."""
        self._writes_left, self._steps_after_write = number, steps

    def writes(self) -> None:
        """Count a write that it sends now."""
        if self._writes_left is not None:
            self._writes_left -= 1
            if self._writes_left == 0:
                self.dies_after(self._steps_after_write)

    def dies_after(self, steps: int) -> None:
        """Let so many more steps of it happen, and then none."""
        self._steps_left = steps

    def step(self) -> bool:
        """Count a step; tell whether it may happen."""
        if self._steps_left is not None and self.is_alive:
            self._steps_left -= 1
            self.is_alive = self._steps_left >= 0
        return self.is_alive


_LIFE: Final[ContextVar[Life | None]] = ContextVar("life", default=None)


class _Call(asyncio.TimerHandle):
    """A callback that knows whose it is."""

    def __init__(
        self,
        when: float,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        loop: "SimulatedLoop",
        context: Context | None,
    ) -> None:
        context = copy_context() if context is None else context
        super().__init__(when, callback, list(args), loop, context)
        self.context = context
        self.life = context.get(_LIFE)


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set follows from when it was made, and not from where it lies in memory."""

    # asyncio's own: whether Python complains where a task goes that has not ended.
    _log_destroy_pending: bool

    def __init__(self, number: int, coroutine: Coroutine[Any, Any, Any], **rest: Any) -> None:
        self._number = number
        super().__init__(coroutine, **rest)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs until a moment of its own time. `on_defect` is told of exceptions that nobody handles."""

    def __init__(self, rng: random.Random, *, on_defect: Callable[[str, BaseException | None], None]) -> None:
        super().__init__()
        self._random = rng.random
        self._on_defect = on_defect
        self._due: list[_Call] = []
        self._later: list[tuple[float, int, _Call]] = []
        self._number = 0
        self._now = 0.0
        self._tasks: list[NumberedTask] = []
        self._outside = copy_context()
        self.steps = 0
        self.stopping = False

    def run_to(self, moment: float) -> None:
        """Do all that is due up to the moment, and stand there then; less, once `stopping` is set."""
        asyncio._set_running_loop(self)
        try:
            while not self.stopping:
                if not self._due:
                    if not self._later or self._later[0][0] > moment:
                        break
                    self._now = max(self._now, self._later[0][0])
                    while self._later and self._later[0][0] <= self._now:
                        self._due.append(heapq.heappop(self._later)[2])
                index = int(self._random() * len(self._due))
                call, self._due[index] = self._due[index], self._due[-1]
                self._due.pop()
                if not call.cancelled() and (call.life is None or call.life.step()):
                    self.steps += 1
                    call._run()
        finally:
            asyncio._set_running_loop(None)
        if not self.stopping:
            self._now = max(self._now, moment)

    def outside(self, delay: float, action: Action) -> asyncio.TimerHandle:
        """Have the world do something, whoever has caused it: it happens also where that program is dead by then."""
        return self.call_at(self._now + delay, action, context=self._outside.copy())

    def within(self, life: Life) -> Context:
        """Return a context in which a life goes on."""
        context = self._outside.copy()
        context.run(_LIFE.set, life)
        return context

    # What asyncio asks of a loop

    def time(self) -> float:
        """Return virtual seconds."""
        return self._now

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Have something done in this moment, after or before whatever else is due in it."""
        call = _Call(self._now, callback, args, self, context)
        self._due.append(call)
        return call

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Have something done after so many seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Have something done at that time."""
        call = _Call(when, callback, args, self, context)
        self._number += 1
        heapq.heappush(self._later, (when, self._number, call))
        return call

    def create_task(self, coro: Any, *, name: object = None, context: Context | None = None) -> Any:
        """Begin a task."""
        self._number += 1
        task = NumberedTask(self._number, coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        if len(self._tasks) % 256 == 0:
            self._tasks = [each for each in self._tasks if not each.done()]
        return task

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Do at once what would be done in a thread: there are none here."""
        future: asyncio.Future[T] = self.create_future()
        future.set_result(func(*args))
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Take what nobody has handled."""
        self._on_defect(str(context.get("message")), context.get("exception"))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing: a cancelled call is skipped when it is due."""

    def close(self) -> None:
        """End whatever has not ended, of the dead and of the living, without a trace."""
        self._on_defect = lambda message, error: None
        for task in self._tasks:
            if not task.done():
                # Python would complain of a task that nobody has waited for; a killed one is no mistake.
                task._log_destroy_pending = False
                _close(task.get_coro())
        self._tasks.clear()
        self._due.clear()
        self._later.clear()
        super().close()


def _close(coroutine: Any) -> None:
    # What cleans up by waiting for something, as a TaskGroup does, has to be told more than once.
    for _ in range(4):
        try:
            coroutine.close()
        except RuntimeError:
            continue
        except BaseException:  # noqa: BLE001 -- a dead program's last words, which nobody hears
            return
        else:
            return
