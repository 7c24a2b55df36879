"""What a plan reckons: each claim after the one before, quota and agent pools that are left, and exit codes."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.nodeclass import DEFAULTS, read_spec
from provisioner.apis.quota import Usage
from provisioner.commands.documents import Wish
from provisioner.commands.exits import Exit
from provisioner.commands.plan_report import plan_document, plan_lines
from provisioner.commands.planning import Outcome, Plan, Situation, make_plan
from provisioner.nodeclaim.agentpool_spec import pool_name
from provisioner.nodeclaim.nodeclass import ClassProblem
from tests.unit.builders import A100, T4, claim, pool, requirement
from tests.unit.placement_builders import Catalogue, gpu

FAMILY = "StandardNCADSA100v4Family"
T4_FAMILY = "Standard NCASv3_T4 Family"
SIZES = Catalogue(
    sizes=(
        gpu(A100, "A100", 24, 220, "3.673", family=FAMILY, spot_price=Decimal("1.469")),
        gpu(T4, "T4", 4, 28, "0.526", family=T4_FAMILY, gpu_memory_gib=16.0),
        gpu("Standard_NC40ads_H100_v5", "H100 NVL", 40, 320, None, family="H100"),
        gpu("Standard_NCC40ads_H100_v5", "H100 NVL", 40, 320, "8.820", family="NCC", restriction="closed to it"),
    )
)
H100, CLOSED = "Standard_NC40ads_H100_v5", "Standard_NCC40ads_H100_v5"
TODAY = datetime(2026, 11, 21, tzinfo=UTC)


def usages(**limits: tuple[int, int]) -> Mapping[str, Usage]:
    """Return quotas by name with limit and what is used of it."""
    rows = {FAMILY: (48, 0), "cores": (100, 4), "lowPriorityCores": (24, 0), **limits}
    return {name.lower(): Usage(name=name, limit=limit, used=used) for name, (limit, used) in rows.items()}


def situation(**changes: Any) -> Situation:
    return Situation(**{"sizes": SIZES, "location": "eastus", "now": TODAY, "usages": usages(), **changes})


def wish(name: str = "ws1", **changes: Any) -> Wish:
    return Wish(label=name, source="claims.yaml", claim=claim(name, **changes))


def several(*sizes: str, spot: bool = False) -> list[dict[str, Any]]:
    asked = [requirement(names.INSTANCE_TYPE_LABEL, "In", *sizes)]
    return [*asked, requirement(names.CAPACITY_TYPE_LABEL, "In", "spot")] if spot else asked


def outcomes(plan: Plan) -> list[tuple[str, str]]:
    return [
        (planned.outcome.value, planned.offer.size.name if planned.offer else planned.reason) for planned in plan.claims
    ]


def test_second_claim_sees_what_the_first_takes() -> None:
    plan = make_plan([wish("ws1"), wish("ws2"), wish("ws3")], situation=situation())

    assert outcomes(plan) == [("create", A100), ("create", A100), ("unavailable", "QuotaExceeded")]
    assert "24 needed, 0 left" in plan.claims[2].message
    assert plan.exit_code == Exit.NOT_NOW


def test_quota_is_told_before_and_after_all_claims() -> None:
    plan = make_plan([wish("ws1"), wish("ws2", requirements=several(A100, spot=True))], situation=situation())

    assert [(q.usage.name, q.before, q.takes, q.after) for q in plan.quotas] == [
        ("lowPriorityCores", 24, 24, 0),
        (FAMILY, 48, 24, 24),
        ("cores", 96, 48, 48),
    ]
    assert plan.price == Decimal("3.673") + Decimal("1.469")


def test_pools_that_are_being_created_hold_quota() -> None:
    held = {(FAMILY.lower(), "on-demand"): 24, ("other", "spot"): 8}
    plan = make_plan([wish("ws1"), wish("ws2")], situation=situation(holds=held))

    assert outcomes(plan) == [("create", A100), ("unavailable", "QuotaExceeded")]
    by_name = {quota.usage.name: quota for quota in plan.quotas}
    assert (by_name[FAMILY].held, by_name[FAMILY].before, by_name[FAMILY].after) == (24, 24, 0)
    assert by_name["cores"].held == 32


def test_claim_falls_back_to_what_the_first_ones_left() -> None:
    wishes = [wish(f"ws{number}", requirements=several(A100, H100)) for number in range(3)]
    plan = make_plan(wishes, situation=situation(usages=usages(H100=(40, 0))))

    assert outcomes(plan) == [("create", A100), ("create", A100), ("create", H100)]
    assert plan.exit_code == Exit.DONE
    assert plan.unpriced == 1


def test_without_usages_it_is_azure_that_decides() -> None:
    plan = make_plan([wish("ws1"), wish("ws2"), wish("ws3")], situation=situation(usages={}))

    assert [planned.outcome for planned in plan.claims] == [Outcome.CREATE] * 3
    assert plan.quotas == ()


def of_class(name: str) -> dict[str, str]:
    return {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": name}


def test_plan_is_made_by_what_each_claims_class_says() -> None:
    classes = {
        "listed": read_spec({"sizePreference": "Listed", "tags": {"env": "test"}})[0],
        "cheap": read_spec({"maxPricePerHour": 0.5})[0],
    }
    wishes = [
        wish("ws1", requirements=several(A100, T4)),
        wish("ws2", requirements=several(A100, T4), nodeClassRef=of_class("listed")),
        wish("ws3", requirements=several(A100, T4), nodeClassRef=of_class("cheap")),
    ]

    plan = make_plan(wishes, situation=situation(class_of=lambda name: classes.get(name, DEFAULTS)))

    assert outcomes(plan) == [("create", T4), ("create", A100), ("refused", "NoFittingInstanceType")]
    body = plan.claims[1].body
    assert body is not None
    assert body["properties"]["tags"]["env"] == "test"
    assert "KaitoNodeClass cheap allows 0.5 $/h" in plan.claims[2].message


# A claim, and what becomes of it.
NOT_CREATED: dict[str, tuple[dict[str, Any], str, str, Exit]] = {
    "unknown size": ({"size": "Standard_NC24_A100"}, "refused", "UnknownInstanceType", Exit.REFUSED),
    "spec that cannot be read": ({"requirements": "none"}, "refused", "InvalidSpec", Exit.REFUSED),
    "label that AKS keeps": (
        {"labels": {names.WORKSPACE_LABEL: "w", "kubernetes.azure.com/mode": "x"}},
        "refused",
        "InvalidLabel",
        Exit.REFUSED,
    ),
    "another provisioner's": (
        {"labels": {}, "nodeClassRef": {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}},
        "refused",
        "NotForThisProvisioner",
        Exit.REFUSED,
    ),
    "restricted size": ({"size": CLOSED}, "unavailable", "SKUNotAvailable", Exit.NOT_NOW),
}


@pytest.mark.parametrize(("changes", "outcome", "reason", "code"), NOT_CREATED.values(), ids=NOT_CREATED.keys())
def test_what_is_not_created_says_why(changes: dict[str, Any], outcome: str, reason: str, code: Exit) -> None:
    plan = make_plan([wish(**changes)], situation=situation())

    assert outcomes(plan) == [(outcome, reason)]
    assert plan.claims[0].message
    assert plan.exit_code == code


def test_worst_outcome_makes_the_exit_code() -> None:
    refused, closed, fine = wish("a", size="nope"), wish("b", size=CLOSED), wish("c")

    assert make_plan([fine, closed, refused], situation=situation()).exit_code == Exit.REFUSED
    assert make_plan([fine, closed], situation=situation()).exit_code == Exit.NOT_NOW
    assert make_plan([fine], situation=situation()).exit_code == Exit.DONE


def test_agent_pool_has_the_claims_name_or_one_made_of_it() -> None:
    plan = make_plan([wish("ws1"), wish("with-dashes")], situation=situation())

    assert [planned.pool for planned in plan.claims] == ["ws1", pool_name("with-dashes")]


def test_name_of_another_pool_is_evaded() -> None:
    foreign = pool("ws1", owner="somebody-else")
    (planned,) = make_plan([wish("ws1")], situation=situation(pools=[foreign])).claims

    assert planned.pool == pool_name("ws1", alternative=True)
    assert "ws1 is there already and is another's" in planned.notes[0]


def test_names_that_are_both_taken_leave_none() -> None:
    pools = [pool("ws1", owner="x"), pool(pool_name("ws1", alternative=True), owner="y")]

    assert outcomes(make_plan([wish("ws1")], situation=situation(pools=pools))) == [
        ("unavailable", "AgentPoolNameTaken")
    ]


def test_pool_of_a_claim_of_that_name_is_noted() -> None:
    (planned,) = make_plan([wish("ws1")], situation=situation(pools=[pool("ws1")])).claims

    assert planned.pool == "ws1"
    assert "there already" in planned.notes[0]


def test_cluster_takes_no_more_pools_than_it_can_have() -> None:
    plan = make_plan([wish("ws1"), wish("ws2")], situation=situation(pools=[pool("a"), pool("b")], max_pools=3))

    assert outcomes(plan) == [("create", A100), ("unavailable", "AgentPoolLimit")]
    assert plan.claims[1].message.startswith("3 of 3 agent pools")


def test_body_is_what_the_controller_would_ask_for() -> None:
    (planned,) = make_plan([wish("ws1")], situation=situation()).claims

    assert planned.body is not None
    properties = planned.body["properties"]
    assert (properties["vmSize"], properties["osDiskSizeGB"], properties["count"]) == (A100, 87, 1)
    assert properties["nodeTaints"] == ["sku=gpu:NoSchedule"]
    assert properties["nodeLabels"]["kaito.sh/creation-timestamp"] == "2026-11-21T00-00-00Z"


def lines_of(plan: Plan, *, why: str = "fitting", show_body: bool = False) -> str:
    return "\n".join(plan_lines(plan, why=why, show_body=show_body))


def test_report_names_offer_next_ones_and_those_left_out() -> None:
    wishes = [wish("ws1", requirements=several(A100, T4, CLOSED, "Standard_nope"))]
    plan = make_plan(wishes, situation=situation())

    text = lines_of(plan)
    assert "NodeClaim ws1 (claims.yaml): would be created" in text
    assert "offer       Standard_NC4as_T4_v3, on-demand, 1 x T4 16 GiB, regional, 87 GiB OS disk, 0.526 $/h" in text
    assert "next        Standard_NC24ads_A100_v4" in text
    assert f"left out    {CLOSED} as on-demand: " in text
    assert "Standard_nope" not in text
    assert "Standard_nope: no VM size of that name" in lines_of(plan, why="all")
    assert CLOSED not in lines_of(plan, why="none")
    assert text.endswith("1 of 1 would be created: 0.526 $/h.")


def test_report_shows_the_body_when_asked() -> None:
    plan = make_plan([wish("ws1")], situation=situation())

    assert "vmSize: Standard_NC24ads_A100_v4" in lines_of(plan, show_body=True)
    assert "vmSize" not in lines_of(plan)


def test_report_of_several_claims_ends_with_all_together() -> None:
    plan = make_plan([wish("ws1"), wish("ws2", size="nope")], situation=situation())

    lines = lines_of(plan).splitlines()
    assert ["ws1", "ws1", A100, "on-demand", "3.673", "create"] in [line.split() for line in lines]
    assert ["ws2", "-", "-", "-", "-", "refused:", "UnknownInstanceType"] in [line.split() for line in lines]
    assert [FAMILY, "48", "0", "0", "48", "24", "24"] in [line.split() for line in lines]
    assert lines[-1] == "1 of 2 would be created: 3.673 $/h."


def test_hostile_names_do_not_reach_the_terminal() -> None:
    hostile = Wish(
        label="ws\x1b[31m1",
        source="a\x1b.yaml",
        claim=claim("ws1", requirements=several("Standard_\x1b[2J\u202e")),
    )
    plan = make_plan([hostile], situation=situation())

    assert all(line.isprintable() for line in plan_lines(plan, why="all", show_body=True))


def test_document_of_a_plan() -> None:
    plan = make_plan([wish("ws1"), wish("ws2", size=CLOSED)], situation=situation())
    document = plan_document(plan, location="eastus", why="fitting", show_body=False)

    first, second = document["claims"]
    assert first["offer"] == {
        "vmSize": A100,
        "capacityType": "on-demand",
        "gpu": "A100",
        "gpus": 1,
        "vcpus": 24,
        "zones": [],
        "osDiskGiB": 87,
        "pricePerHour": 3.673,
    }
    assert (first["outcome"], first["agentPool"], first["reason"], first["leftOut"]) == ("create", "ws1", None, [])
    assert (second["outcome"], second["offer"], second["reason"]) == ("unavailable", None, "SKUNotAvailable")
    assert [(entry["vmSize"], entry["because"]) for entry in second["leftOut"]] == [(CLOSED, "restricted")]
    assert document["quotas"][0] == {
        "name": FAMILY,
        "limit": 48,
        "used": 0,
        "held": 0,
        "left": 48,
        "takes": 24,
        "leftAfter": 24,
    }
    assert (document["region"], document["pricePerHour"], document["exitCode"]) == ("eastus", 3.673, 3)
    assert "body" not in first


def test_claim_whose_node_class_is_missing_waits_and_takes_nothing() -> None:
    def missing(name: str) -> ClassProblem | None:
        return ClassProblem(reason="NodeClassNotFound", message=f"no {name}") if name != "default" else None

    there = replace(situation(), class_problem_of=missing)
    named = {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "gone"}
    plan = make_plan([wish("ws1", nodeClassRef=named), wish("ws2")], situation=there)

    assert [(planned.outcome, planned.reason) for planned in plan.claims] == [
        (Outcome.UNAVAILABLE, "NodeClassNotFound"),
        (Outcome.CREATE, ""),
    ]
    assert plan.exit_code is Exit.NOT_NOW
