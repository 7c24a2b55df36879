"""ARM as one program meets it: the budget of requests is the real one, what lies behind it is made up."""

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from azure.core.exceptions import ServiceRequestTimeoutError

from fakes.azure import errors
from fakes.azure.errors import AzureError
from provisioner.azure.budget import Budget
from provisioner.azure.errors import ArmFailure, Postponed, classify, classify_response, outcome_unknown, status_unknown
from provisioner.azure.session import ArmResponse, AzureTarget
from tests.chaos.azure import Azure, listing
from tests.chaos.loop import Life
from tests.chaos.world import World

# What goes wrong with one request while things go wrong, and how often of a thousand.
_FAULTS: Final = (
    ("not connected", 15),
    ("lost answer", 30),
    ("late effect", 8),
    ("429", 20),
    ("500", 15),
    ("503 after it took effect", 10),
    ("409", 15),
)
_WRITES: Final = ("PUT", "DELETE")


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int
    body: Any = None
    headers: Mapping[str, str] | None = None

    @property
    def text(self) -> str:
        return json.dumps(self.body) if self.body is not None else ""


class Arm:
    """The way to Azure, for everybody. While it is away nothing is answered."""

    def __init__(self, world: World, azure: Azure) -> None:
        self._world = world
        self.azure = azure
        self.is_away = False

    def connect(self, life: Life, *, share: float) -> "Session":
        """Return the way to it for one run of the controller."""
        return Session(self._world, self, life, share=share)

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None, *, luck: bool
    ) -> _Answer:
        """Carry a request out."""
        azure = self.azure
        _, _, name = path.partition("/agentPools/")
        try:
            if method == "PUT" and body is not None:
                return _Answer(status=201, body=azure.put(name, headers, body))
            if method == "DELETE":
                if name not in azure.pools and luck:
                    return _Answer(status=204)
                azure.delete(name, headers)
                return _Answer(status=202)
            return _Answer(status=200, body=self._read(path))
        except AzureError as error:
            return refused(error)

    def _read(self, path: str) -> Any:
        azure = self.azure
        if path.endswith("/usages"):
            return azure.usages()
        if path.endswith("/skus"):
            return listing()
        if path.endswith("/machines"):
            return azure.machines(path.split("/")[-2])
        if path.endswith("/upgradeProfiles/default"):
            return azure.upgrade_profile(path.split("/")[-3])
        if path.endswith("/agentPools"):
            return azure.listed()
        return azure.cluster()


def refused(error: AzureError) -> _Answer:
    """Return an answer of Azure's that says no."""
    headers = {"Retry-After": str(int(error.retry_after))} if error.retry_after is not None else {}
    return _Answer(status=error.status, body=error.body(), headers={**headers, **error.headers})


class Session:
    """One program's way to ARM; takes the place of `AzureSession`."""

    def __init__(self, world: World, arm: Arm, life: Life, *, share: float) -> None:
        ids = arm.azure.ids
        self.target = AzureTarget(
            subscription_id=ids.subscription, resource_group=ids.resource_group, cluster_name=ids.cluster
        )
        self._world = world
        self._arm = arm
        self._life = life
        self._dice = world.dice(f"session {life.number}")
        self._budget = Budget(clock=world.loop.time, share=share)

    async def call(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        timeout: float,
        accept: Collection[int],
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> ArmResponse:
        """Make one request."""
        answer = await self._exchange(method, path, operation, timeout, accept, headers or {}, body)
        return ArmResponse(status=answer.status, text=answer.text)

    async def list(
        self, path: str, *, operation: str, timeout: float, query: Mapping[str, str]
    ) -> tuple[Mapping[str, Any], ...]:
        """Return a whole collection."""
        answer = await self._exchange("GET", path, operation, timeout, (200,), {}, None)
        return tuple(answer.body)

    async def _exchange(
        self,
        method: str,
        path: str,
        operation: str,
        timeout: float,
        accept: Collection[int],
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None,
    ) -> _Answer:
        wait = self._budget.admit(operation, path=path)
        if wait is not None:
            raise Postponed(wait)
        world = self._world
        world.counts[f"arm {operation}"] += 1
        if method in _WRITES:
            self._life.writes()
        what = f"{method} {path.rpartition('/managedClusters')[2] or path}"
        if world.is_traced:
            world.trace(f"controller{self._life.number}", f"{what} {dict(headers) or ''}")
        try:
            async with asyncio.timeout(timeout):
                answer = await self._send(method, path, what, headers, body)
        except (TimeoutError, ServiceRequestTimeoutError, ConnectionError) as error:
            world.trace("arm", f"{what} <- {type(error).__name__} {error}")
            unknown = method in _WRITES and outcome_unknown(error)
            raise ArmFailure(classify(error), outcome_unknown=unknown) from error
        if method in _WRITES or answer.status >= 400:
            world.trace("arm", f"{what} <- {answer.status} {_code(answer)}")
        if answer.status in accept:
            self._budget.answered(operation)
            return answer
        failure = classify_response(status=answer.status, headers=answer.headers or {}, body=answer.text)
        if answer.status == 429:
            self._budget.throttled(operation, path=path, failure=failure)
        else:
            self._budget.answered(operation)
        unknown = method in _WRITES and status_unknown(answer.status)
        raise ArmFailure(failure, outcome_unknown=unknown, status=answer.status)

    async def _send(
        self, method: str, path: str, what: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> _Answer:
        world, dice = self._world, self._dice
        fault = self._fault(method, what)
        answered: asyncio.Future[_Answer] = world.loop.create_future()
        luck, on_the_way = dice.chance(0.5), dice.chance(0.5)

        def answer(result: _Answer | Exception) -> None:
            if answered.done():
                return
            if isinstance(result, _Answer) and result.status == 201:
                self._arm.azure.pools_told(str(result.body["name"]), result.body["properties"]["eTag"], self._life)
            if isinstance(result, Exception):
                answered.set_exception(result)
            else:
                answered.set_result(result)

        def arrive() -> None:
            if not self._life.is_alive and not on_the_way:
                return
            if self._arm.is_away or fault == "not connected":
                answer(ServiceRequestTimeoutError("connect timed out"))
                return
            refusal = _refusal(fault, dice.whole(1, 60))
            result = refusal or self._arm.answer(method, path, headers, body, luck=luck)
            if fault == "503 after it took effect":
                result = _Answer(status=503, body={"error": errors.error("ServerTimeout", "The request timed out.")})
            if fault == "lost answer":
                lost = ConnectionResetError("Connection reset by peer")
                # At once, or by the time limit.
                world.after(dice.short(0.0, 1.0), _action(answer, lost) if luck else lambda: None)
                return
            slow = method in _WRITES and dice.chance(0.1)
            world.after(dice.between(1.0, 20.0) if slow else dice.short(0.02, 2.0), _action(answer, result))

        if fault == "late effect":
            # The connection is cut, and the request goes on without it.
            world.after(dice.short(0.0, 1.0), _action(answer, ConnectionResetError("Connection reset by peer")))
            world.after(dice.short(0.5, 60.0), arrive)
        else:
            world.after(dice.short(0.01, 1.0), arrive)
        return await answered

    def _fault(self, method: str, what: str) -> str:
        if not self._world.faults_on:
            return ""
        drawn = self._dice.between(0, 1000) / self._world.mood
        for kind, share in _FAULTS:
            drawn -= share
            if drawn < 0:
                if kind in ("409", "late effect") and method not in _WRITES:
                    return ""
                self._world.fault(f"arm {kind}", what)
                return kind
        return ""


def _refusal(fault: str, seconds: int) -> _Answer | None:
    match fault:
        case "429":
            return refused(errors.throttled("PutAgentPoolHandler", "AgentPool", seconds=float(seconds)))
        case "500":
            return _Answer(status=500, body=errors.AzureError(500, "InternalServerError", "Internal error.").body())
        case "409":
            return refused(errors.cluster_busy("Updating"))
    return None


def _action(answer: Callable[[_Answer | Exception], None], result: _Answer | Exception) -> Callable[[], None]:
    return lambda: answer(result)


def _code(answer: _Answer) -> str:
    body = answer.body if isinstance(answer.body, dict) else {}
    return str(body.get("code") or (body.get("error") or {}).get("code") or "")
