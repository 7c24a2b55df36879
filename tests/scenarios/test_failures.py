"""What Azure refuses or loses: the claim says why and what to do, waits without hammering, and goes on by itself.

All claims run side by side, each with its own fault. Only refusals with a short first pause are followed until the
claim is Ready: quota is asked for again after a minute, capacity after two, and nothing here waits for that.
"""

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.azure import Answer, Disconnect, Fault, OperationFault
from fakes.azure.errors import error
from fakes.cluster.interface import ControlPlane
from fakes.nodes import FaultKind
from tests.claims import A100, kaito_claim
from tests.conftest import SCALE
from tests.kube import CLAIMS, Kube, Object, condition, eventually, has_reason, is_true
from tests.scenarios.azure_side import calls, wait_calls
from tests.scenarios.on_azure import AGES, DELETE, LIST, PUT, pools, statuses, wait_pool
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What KAITO shows of a message.
SHOWN = 256
# Real seconds of Retry-After, longer than the controller would pause by itself: 10 to 12 s when throttled, 5 to 6 s
# after an error of Azure's own.
THROTTLED_FOR = 13
BROKEN_FOR = 8
SHORTEST_PAUSE = 5.0


def flat(code: str, message: str) -> Object:
    """An error as the AKS resource provider words it."""
    return {"code": code, "details": None, "message": message, "subcode": ""}


def nested(code: str, message: str, **more: Any) -> Object:
    """An error as ARM and Compute word it."""
    return {"error": error(code, message, **more)}


def refused(pool: str, status: int, body: Object) -> Answer:
    """Every PUT of the pool is refused."""
    return Answer(operation=PUT, pool=pool, status=status, body=body, times=None)


def fails(pool: str, failure: Object, *, times: int | None = 1) -> OperationFault:
    """The creation is accepted and fails half a minute later, before there is a VM."""
    return OperationFault(operation=PUT, pool=pool, error=failure, after=30.0, machines=False, times=times)


FAMILY_QUOTA = (
    "Insufficient vcpu quota requested 24, remaining 6 for family StandardNCADSA100v4Family for region eastus. If you "
    "want to increase the quota, please follow this instruction: https://learn.microsoft.com/azure/quotas/view-quotas."
)
COMPUTE_QUOTA = (
    "Operation could not be completed as it results in exceeding approved StandardNCADSA100v4Family Cores quota. "
    "Additional details - Deployment Model: Resource Manager, Location: eastus, Current Limit: 20, Current Usage: 12, "
    "Additional Required: 24, (Minimum) New Limit Required: 36."
)
LACKS_ROLE = (
    "The client 'c' with object id '00000000-0000-4000-8000-0000000c11e7' does not have authorization to perform "
    "action 'Microsoft.ContainerService/managedClusters/agentPools/write' over scope '/subscriptions/s' or the scope "
    "is invalid."
)
POLICY = (
    'Resource \'wspolicy\' was disallowed by policy. Policy identifiers: \'[{"policyAssignment":{"name":"No GPUs"}}]\'.'
)
NO_CAPACITY = "Allocation failed. We do not have sufficient capacity for the requested VM size in this region."

# Refused at once, again and again: fault, condition reason, what stands in the part of the message that is shown, and
# the least real seconds between two PUTs.
REFUSED: dict[str, tuple[Fault, str, tuple[str, ...], float]] = {
    "wsquota": (
        refused("wsquota", 400, flat("ErrCode_InsufficientVCPUQuota", FAMILY_QUOTA)),
        "QuotaExceeded",
        ("24 needed, 6 left", "StandardNCADSA100v4Family", "Ask for more: https://"),
        60.0,
    ),
    "wsrole": (
        refused("wsrole", 403, nested("AuthorizationFailed", LACKS_ROLE)),
        "AuthorizationFailed",
        ("lacks Microsoft.ContainerService/managedClusters/agentPools/write", "Azure Kubernetes Service Contributor"),
        30.0,
    ),
    "wstoken": (
        refused("wstoken", 401, nested("InvalidAuthenticationToken", "The access token is invalid.")),
        "AuthorizationFailed",
        ("check AZURE_CLIENT_ID, AZURE_TENANT_ID and its role on the cluster",),
        30.0,
    ),
    "wspolicy": (
        refused("wspolicy", 403, nested("RequestDisallowedByPolicy", POLICY)),
        "DisallowedByPolicy",
        ("An Azure Policy (No GPUs) forbids this",),
        300.0,
    ),
    "wssize": (
        refused(
            "wssize", 400, flat("VMSizeNotSupported", "Virtual Machine size: 'X' is not supported for subscription")
        ),
        "SKUNotAvailable",
        ("is not offered to this subscription", "Use another size or region"),
        300.0,
    ),
    "wsbad": (
        refused("wsbad", 400, flat("InvalidParameter", "The value of parameter agentPoolProfile.x is invalid.")),
        "InvalidRequest",
        ("Azure refuses the request as it is", "agentPoolProfile.x"),
        300.0,
    ),
}

# Accepted, and failed later on, every time.
FAILED: dict[str, tuple[Fault, str, tuple[str, ...], float]] = {
    "wscores": (
        fails(
            "wscores",
            error("QuotaExceeded", "The operation failed.", details=[error("OperationNotAllowed", COMPUTE_QUOTA)]),
            times=None,
        ),
        "QuotaExceeded",
        ("24 needed, 8 left (limit 20)", "StandardNCADSA100v4Family", "Ask for more: https://"),
        60.0,
    ),
    "wsfull": (
        fails("wsfull", error("AllocationFailed", NO_CAPACITY), times=None),
        "InsufficientCapacity",
        ("Azure has no capacity", "Use another size, zone or region, or wait"),
        120.0,
    ),
}

# What Azure says of a size it says to all claims: those of which it does have sizes to themselves.
SIZES: dict[str, str] = {
    "wsquota": "Standard_NC48ads_A100_v4",
    "wssize": "Standard_ND96asr_v4",
    "wscores": "Standard_NC96ads_A100_v4",
    "wsfull": "Standard_NC40ads_H100_v5",
}

# Goes wrong once: fault, reason of the Event, least real seconds between the first PUT and the next.
PASSING: dict[str, tuple[Fault, str, float]] = {
    "wsbusy": (
        Answer(
            operation=PUT,
            pool="wsbusy",
            status=409,
            body=flat("OperationNotAllowed", "Operation is not allowed: Another operation (Updating) is in progress."),
        ),
        "OperationInProgress",
        SHORTEST_PAUSE,
    ),
    "wsinternal": (
        Answer(
            operation=PUT, pool="wsinternal", status=500, body=nested("InternalServerError", "Encountered an error.")
        ),
        "AzureError",
        SHORTEST_PAUSE,
    ),
    "wshtml": (
        Answer(operation=PUT, pool="wshtml", status=502, body="<html><title>502 Bad Gateway</title><body/></html>"),
        "AzureError",
        SHORTEST_PAUSE,
    ),
    "wsnobody": (Answer(operation=PUT, pool="wsnobody", status=504), "AzureError", SHORTEST_PAUSE),
    "wslater": (
        Answer(
            operation=PUT,
            pool="wslater",
            status=503,
            body=flat("ServiceUnavailable", "The service is unavailable."),
            headers={"Retry-After": str(BROKEN_FOR)},
        ),
        "AzureError",
        BROKEN_FOR,
    ),
    "wsthrottled": (
        Answer(
            operation=PUT,
            pool="wsthrottled",
            status=429,
            body=flat("Throttled", "The PutAgentPoolHandler.PUT request limit has been exceeded."),
            headers={"Retry-After": str(THROTTLED_FOR)},
        ),
        "Throttled",
        THROTTLED_FOR,
    ),
    "wsinside": (
        fails("wsinside", error("ReconcileVMSSAgentPoolFailed", "We are unable to serve this request.")),
        "AzureError",
        SHORTEST_PAUSE,
    ),
    "wspreempted": (
        fails("wspreempted", error("AKSOperationPreempted", "This operation has been preempted by another operation.")),
        "OperationInProgress",
        SHORTEST_PAUSE,
    ),
}

# Takes effect, but nobody is told.
LOST: dict[str, Fault] = {
    "wslost": Disconnect(operation=PUT, pool="wslost", after_effect=True),
    "wslostbody": Answer(operation=PUT, pool="wslostbody", status=200, body="<html/>", after_effect=True),
    "wslosterror": Answer(
        operation=PUT, pool="wslosterror", status=500, body=nested("InternalServerError", "x"), after_effect=True
    ),
}

# Breaks before Azure hears of anything. Twice: the HTTP client repeats a PUT of its own accord where a connection that
# it had kept turns out broken.
RESET: Fault = Disconnect(operation=PUT, pool="wsreset", times=2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    faults: dict[str, Fault] = {name: case[0] for name, case in (REFUSED | FAILED).items()}
    faults |= {name: case[0] for name, case in PASSING.items()} | LOST | {"wsreset": RESET}

    async def prepare(aks: FakeAks, kube: Kube) -> None:
        for name, fault in faults.items():
            aks.azure.add_fault(fault)
            await kube.create(CLAIMS, kaito_claim(name, instance_type=SIZES.get(name, A100)))

    log = tmp_path_factory.mktemp("failures") / "controller.log"
    async with running(control_plane, log=log, prepare=prepare) as cluster:
        yield cluster


@pytest.fixture
def kube(cluster: Running) -> Kube:
    return cluster.kube


@pytest.fixture
def aks(cluster: Running) -> FakeAks:
    return cluster.aks


async def warnings(kube: Kube, name: str) -> list[Object]:
    return [event for event in await kube.events_of(name) if event["type"] == "Warning"]


async def assert_told(kube: Kube, name: str, *, reason: str, says: tuple[str, ...]) -> None:
    """See the reason on a claim that stays, what matters in what KAITO shows of it, and one Event about it."""
    claim = await kube.wait_claim(name, has_reason("Launched", reason))
    launched = condition(claim, "Launched")
    # These claims allow one size each: when that cannot be had, nothing can.
    assert launched["status"] in ({"Unknown", "False"} if name in SIZES else {"Unknown"})
    shown = launched["message"].encode()[:SHOWN].decode(errors="ignore")
    for words in says:
        assert words in shown
    # A client that sees a failed claim vanish writes the next one at once.
    assert "deletionTimestamp" not in claim["metadata"]
    seen = await eventually(lambda: warnings(kube, name), what=f"a Warning about {name}")
    assert [(event["reason"], event["count"]) for event in seen] == [(reason, 1)]
    for words in says:
        assert words in seen[0]["message"]


def gaps(aks: FakeAks, name: str) -> list[float]:
    """Return the real seconds between the PUTs of a pool."""
    times = [call.time / SCALE for call in calls(aks, PUT, name)]
    return [later - earlier for earlier, later in pairwise(times)]


@pytest.mark.parametrize("name", REFUSED)
async def test_refusal_is_told(aks: FakeAks, kube: Kube, name: str) -> None:
    _, reason, says, _ = REFUSED[name]

    await assert_told(kube, name, reason=reason, says=says)

    assert name not in pools(aks)


@pytest.mark.parametrize("name", FAILED)
async def test_pool_whose_creation_failed_is_deleted_and_its_failure_told(aks: FakeAks, kube: Kube, name: str) -> None:
    _, reason, says, _ = FAILED[name]

    await assert_told(kube, name, reason=reason, says=says)

    await wait_pool(aks, name, None)
    assert set(statuses(aks, DELETE, pool=name)) == {202}
    assert has_reason("Launched", reason)(await kube.claim(name) or {})


@pytest.mark.parametrize("name", LOST)
async def test_pool_is_found_again_whose_creation_nobody_was_told_of(aks: FakeAks, kube: Kube, name: str) -> None:
    await kube.wait_claim(name, is_true("Ready"))

    # The HTTP client may repeat a PUT whose connection broke; a second pool is none of its effects.
    assert set(statuses(aks, PUT, pool=name)[1:]) <= {412}
    assert not calls(aks, DELETE, name)


async def test_deletion_whose_answer_is_lost_is_completed(aks: FakeAks, kube: Kube) -> None:
    await kube.create(CLAIMS, kaito_claim("wsforgot"))
    await kube.wait_claim("wsforgot", is_true("Ready"))
    aks.azure.add_fault(Disconnect(operation=DELETE, pool="wsforgot", after_effect=True))

    await kube.delete(CLAIMS, "wsforgot")
    await kube.wait_gone(CLAIMS, "wsforgot")

    assert "wsforgot" not in pools(aks)
    assert 202 not in statuses(aks, DELETE, pool="wsforgot")


async def test_claim_does_not_wait_for_an_operation_that_is_stuck_when_its_node_is_there(
    aks: FakeAks, kube: Kube
) -> None:
    aks.azure.add_fault(OperationFault(operation=PUT, pool="wsstuck", outcome="Stuck"))
    await kube.create(CLAIMS, kaito_claim("wsstuck"))

    await kube.wait_claim("wsstuck", is_true("Ready"))

    assert pools(aks)["wsstuck"].state == "Creating"


async def test_claim_whose_creation_is_stuck_says_so_and_can_be_deleted(aks: FakeAks, kube: Kube) -> None:
    aks.azure.add_fault(OperationFault(operation=PUT, pool="wsnothing", outcome="Stuck", machines=False, after=AGES))
    await kube.create(CLAIMS, kaito_claim("wsnothing"))
    await kube.wait_claim("wsnothing", has_reason("Launched", "CreatingAgentPool"))
    await wait_pool(aks, "wsnothing", "Creating")
    await wait_calls(aks, LIST, more=3)
    assert has_reason("Launched", "CreatingAgentPool")(await kube.claim("wsnothing") or {})

    await kube.delete(CLAIMS, "wsnothing")
    await kube.wait_gone(CLAIMS, "wsnothing")

    assert "wsnothing" not in pools(aks)
    assert statuses(aks, PUT, pool="wsnothing") == [201]


async def test_connection_that_breaks_before_azure_hears_anything_is_no_loss(aks: FakeAks, kube: Kube) -> None:
    await kube.wait_claim("wsreset", is_true("Ready"))

    assert [event["reason"] for event in await eventually(lambda: warnings(kube, "wsreset"))] == ["AzureError"]
    assert statuses(aks, PUT, pool="wsreset") == [None, None, 201]


async def test_neither_writes_to_a_claim_nor_lists_make_azure_be_asked_again(aks: FakeAks, kube: Kube) -> None:
    everybody = REFUSED | FAILED
    for name, (_, reason, *_) in everybody.items():
        await kube.wait_claim(name, has_reason("Launched", reason))
    for number in range(3):
        for name in everybody:
            await kube.patch(CLAIMS, name, {"metadata": {"annotations": {"example.com/poked": str(number)}}})
        await wait_calls(aks, LIST, more=2)

    for name, (*_, pause) in everybody.items():
        assert calls(aks, PUT, name)
        assert all(gap >= pause for gap in gaps(aks, name)), name


@pytest.mark.parametrize("name", PASSING)
async def test_claim_goes_on_by_itself_after_what_passes(aks: FakeAks, kube: Kube, name: str) -> None:
    fault, reason, pause = PASSING[name]

    await kube.wait_claim(name, is_true("Ready"))

    assert [event["reason"] for event in await eventually(lambda: warnings(kube, name))] == [reason]
    (gap,) = gaps(aks, name)
    assert gap >= pause
    assert statuses(aks, PUT, pool=name)[1] == 201
    assert len(calls(aks, DELETE, name)) == (1 if isinstance(fault, OperationFault) else 0)


async def asked(aks: FakeAks, operation: str, pool: str) -> int:
    return len(calls(aks, operation, pool))


async def test_pool_without_a_vm_is_not_asked_after_without_end(aks: FakeAks, kube: Kube) -> None:
    """The pool stands, and neither a Node has joined nor does Azure list a VM: that is asked for now and then only."""
    hidden = aks.azure.add_fault(
        Answer(operation="machines.list", pool="wsnovm", status=200, body={"value": []}, times=None)
    )
    late = aks.nodes.add_fault(FaultKind.NEVER_JOINS, pool="wsnovm")
    await kube.create(CLAIMS, kaito_claim("wsnovm"))
    await wait_pool(aks, "wsnovm", "Succeeded")
    await eventually(lambda: asked(aks, "machines.list", "wsnovm"), what="the question for the VM")
    await wait_calls(aks, LIST, more=3)
    assert len(calls(aks, "machines.list", "wsnovm")) <= 2

    aks.azure.faults.remove(hidden)
    aks.nodes.clear(late)
    await kube.wait_claim("wsnovm", is_true("Ready"))
