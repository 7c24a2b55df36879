"""What a claim is doing, read from its conditions, and the table of all claims."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.commands.claims_table import (
    change_lines,
    claim_lines,
    claims_document,
    gone,
    summary,
)
from provisioner.commands.phases import ClaimStatus, Phase, claim_status
from tests.unit.builders import A100, CREATED, NOW, claim, condition, provider_id, recorded_claim

LATER = CREATED + timedelta(minutes=5)

LAUNCHED = condition("Launched", "True", "Launched")
REGISTERED = condition("Registered", "True", "Registered")
INITIALIZED = condition("Initialized", "True", "Initialized")

# Conditions as stored, and the phase and reason that they make.
PHASES: Mapping[str, tuple[list[dict[str, Any]], Phase, str]] = {
    "nobody has looked": ([], Phase.WAITING, ""),
    "not decided": (
        [condition("Launched", "Unknown", "AwaitingReconciliation", "object is awaiting reconciliation")],
        Phase.WAITING,
        "AwaitingReconciliation: object is awaiting reconciliation",
    ),
    "quota": (
        [condition("Launched", "Unknown", "QuotaExceeded", "24 needed, 0 left")],
        Phase.WAITING,
        "QuotaExceeded: 24 needed, 0 left",
    ),
    "being created": (
        [condition("Launched", "Unknown", "CreatingAgentPool", "Azure is creating it.")],
        Phase.LAUNCHING,
        "CreatingAgentPool: Azure is creating it.",
    ),
    "refused": (
        [condition("Launched", "False", "UnknownInstanceType", "no such size")],
        Phase.FAILED,
        "UnknownInstanceType: no such size",
    ),
    "no Node yet": (
        [LAUNCHED, condition("Registered", "Unknown", "NodeNotFound", "not there")],
        Phase.REGISTERING,
        "NodeNotFound: not there",
    ),
    "nothing said of registration": ([LAUNCHED], Phase.REGISTERING, ""),
    "two Nodes": (
        [LAUNCHED, condition("Registered", "False", "MultipleNodesFound", "two")],
        Phase.FAILED,
        "MultipleNodesFound: two",
    ),
    "no GPUs yet": (
        [LAUNCHED, REGISTERED, condition("Initialized", "Unknown", "ResourceNotRegistered", "0 of 1")],
        Phase.INITIALIZING,
        "ResourceNotRegistered: 0 of 1",
    ),
    "root not written yet": ([LAUNCHED, REGISTERED, INITIALIZED], Phase.INITIALIZING, ""),
    "ready": ([LAUNCHED, REGISTERED, INITIALIZED, condition("Ready", "True", "Ready")], Phase.READY, ""),
    "ready and drifted": (
        [
            LAUNCHED,
            REGISTERED,
            INITIALIZED,
            condition("Drifted", "True", "ImageDrift", "Node image a; the pool's newest is b."),
            condition("Ready", "True", "Ready"),
        ],
        Phase.READY,
        "ImageDrift: Node image a; the pool's newest is b.",
    ),
}


@pytest.mark.parametrize(("conditions", "phase", "why"), PHASES.values(), ids=PHASES.keys())
def test_phase_is_read_from_conditions(conditions: list[dict[str, Any]], phase: Phase, why: str) -> None:
    status = claim_status(claim(status={"conditions": conditions}))

    assert (status.phase, status.why) == (phase, why)


def test_phase_lasts_since_its_condition_has_moved() -> None:
    moved = condition("Registered", "Unknown", "NodeNotFound", since=LATER)

    assert claim_status(claim(status={"conditions": [LAUNCHED, moved]})).since == LATER
    assert claim_status(claim()).since == CREATED


def test_deleted_claim_terminates_since_it_was_deleted() -> None:
    told = condition("InstanceTerminating", "True", "InstanceTerminating", "Azure is deleting agent pool x.")
    status = claim_status(claim(deleted=LATER, status={"conditions": [LAUNCHED, told]}))

    assert (status.phase, status.since) == (Phase.TERMINATING, LATER)
    assert status.why == "Azure is deleting agent pool x."


def test_deleted_claim_says_what_its_drain_waits_for() -> None:
    held = condition("Drained", "Unknown", "Draining", "1 pod is waiting to be evicted: default/p1.")
    status = claim_status(claim(deleted=LATER, status={"conditions": [LAUNCHED, held]}))

    assert (status.phase, status.since) == (Phase.TERMINATING, LATER)
    assert status.why == "Draining: 1 pod is waiting to be evicted: default/p1."


def test_pool_size_and_node_are_what_is_recorded() -> None:
    labels = {names.WORKSPACE_LABEL: "w", names.CAPACITY_TYPE_LABEL: "spot"}
    stored = {"providerID": provider_id("ws1"), "nodeName": "aks-ws1-0"}
    status = claim_status(recorded_claim("ws1", labels=labels, status=stored))

    assert (status.pool, status.size, status.node) == ("ws1", A100, "aks-ws1-0")
    assert (status.capacity_type, status.runs) == ("spot", True)


def test_pool_of_a_peers_claim_is_read_from_its_vm() -> None:
    assert claim_status(claim("ws1", status={"providerID": provider_id("ws1")})).pool == "ws1"


def test_size_of_a_claim_that_names_several_is_open() -> None:
    both = {"key": names.INSTANCE_TYPE_LABEL, "operator": "In", "values": [A100, "Standard_NC4as_T4_v3"]}

    assert claim_status(claim()).size == A100
    assert claim_status(claim(requirements=[both])).size == ""
    assert claim_status(claim(requirements="none")).size == ""


def status(name: str = "ws1", phase: Phase = Phase.READY, **changes: Any) -> ClaimStatus:
    made = ClaimStatus(
        name=name,
        pool=name,
        size=A100,
        capacity_type="on-demand",
        node=f"aks-{name}-0",
        phase=phase,
        since=CREATED,
        reason="",
        message="",
        runs=True,
        price=Decimal("3.673"),
    )
    return replace(made, **changes)


WAITING: Mapping[str, Any] = {"phase": Phase.WAITING, "runs": False, "price": None, "node": "", "pool": ""}


def test_table_has_a_row_for_each_claim_and_the_sum_of_what_runs() -> None:
    claims = [status("a"), status("b", capacity_type="spot"), status("c", **WAITING, reason="Q", message="none left")]

    assert claim_lines(claims, now=NOW) == [
        "NAME  POOL  SIZE                             NODE     PHASE    SINCE    $/H  REASON",
        "a     a     Standard_NC24ads_A100_v4         aks-a-0  Ready       2s  3.673",
        "b     b     Standard_NC24ads_A100_v4 (spot)  aks-b-0  Ready       2s  3.673",
        "c     -     Standard_NC24ads_A100_v4         -        Waiting     2s      -  Q: none left",
        "",
        "3 claims: 1 Waiting, 2 Ready. 2 with a VM, 7.346 $/h.",
    ]


def test_what_is_asked_for_costs_nothing_before_it_runs() -> None:
    launching = status(phase=Phase.LAUNCHING, runs=False)

    assert summary([launching]) == "1 claim: 1 Launching. 0 with a VM, 0.000 $/h."


def test_unknown_prices_are_counted_not_left_out() -> None:
    assert summary([status(), status("b", price=None)]).endswith("2 with a VM, 3.673 $/h and 1 of unknown price.")


def test_no_claims_are_said_to_be_none() -> None:
    assert claim_lines([], now=NOW) == ["No NodeClaims of this provisioner."]


def test_narrow_terminal_keeps_phase_and_reason() -> None:
    lines = claim_lines([status(**WAITING, reason="QuotaExceeded", message="24 needed " * 40)], now=NOW, width=70)

    assert all(len(line) <= 70 for line in lines)
    assert "NODE" not in lines[0]
    assert "Waiting" in lines[1]
    assert "QuotaExceeded" in lines[1]


def test_wide_table_has_whole_messages_whatever_the_width() -> None:
    message = "24 needed " * 100
    lines = claim_lines([status(message=message)], now=NOW, width=40, wide=True)

    assert lines[1].endswith(message.strip())


def test_hostile_message_does_not_reach_the_terminal() -> None:
    hostile = status(message="\x1b]0;owned\x07\x1b[2J", node="n\x1b[31m")

    assert all(line.isprintable() for line in claim_lines([hostile], now=NOW, wide=True))
    assert all(line.isprintable() for line in change_lines({}, [hostile], now=NOW))


def test_lines_of_changes_are_of_what_is_new_other_or_gone() -> None:
    before = {claim.name: claim for claim in (status("a"), status("b"), status("c"))}
    now = [status("a"), status("b", phase=Phase.TERMINATING), status("d")]

    lines = [line.split() for line in change_lines(before, now, now=NOW)]

    assert [(line[0], line[4]) for line in lines] == [("b", "Terminating"), ("d", "Ready"), ("c", "Gone")]
    assert change_lines({claim.name: claim for claim in now}, now, now=NOW) == []


def test_what_is_gone_costs_nothing() -> None:
    (ended,) = gone({"a": status("a", message="Azure is deleting it.")}, [], now=LATER)

    assert (ended.runs, ended.price, ended.message, ended.since) == (False, None, "", LATER)


def test_document_has_all_of_it() -> None:
    claims = [status("a"), status("b", **WAITING, reason="Q", message="none left")]

    assert claims_document(claims) == {
        "claims": [
            {
                "name": "a",
                "agentPool": "a",
                "vmSize": A100,
                "capacityType": "on-demand",
                "nodeName": "aks-a-0",
                "phase": "Ready",
                "since": "2026-11-21T04:34:24Z",
                "reason": None,
                "message": None,
                "runs": True,
                "pricePerHour": 3.673,
            },
            {
                "name": "b",
                "agentPool": None,
                "vmSize": A100,
                "capacityType": "on-demand",
                "nodeName": None,
                "phase": "Waiting",
                "since": "2026-11-21T04:34:24Z",
                "reason": "Q",
                "message": "none left",
                "runs": False,
                "pricePerHour": None,
            },
        ],
        "phases": {"Waiting": 1, "Ready": 1},
        "running": 1,
        "pricePerHour": 3.673,
        "unpriced": 0,
    }
