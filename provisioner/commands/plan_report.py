"""A plan as text and as a document. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import yaml

from provisioner.apis import names
from provisioner.apis.times import format_time
from provisioner.commands.planning import Outcome, Plan, Planned, QuotaChange
from provisioner.commands.room import title
from provisioner.commands.text import clean, fields, money, table
from provisioner.commands.workspace_report import workspace_dict, workspace_lines
from provisioner.placement.market import LeftOut, Offer

# Of the offers that come after the first.
_NEXT: Final = 5
_OUTCOMES: Final = {
    Outcome.CREATE: "would be created",
    Outcome.UNAVAILABLE: "cannot be had now",
    Outcome.REFUSED: "is refused as it is written",
}


def plan_lines(plan: Plan, *, why: str, show_body: bool) -> list[str]:
    """Return the plan for people: each Workspace and claim, then all together. `why` is fitting, all or none."""
    lines: list[str] = []
    for part in plan.parts:
        if part.workspace is not None:
            lines += [*workspace_lines(part.workspace, show_body=show_body), ""]
        for planned in part.claims:
            lines += [*_claim_lines(planned, why=why, show_body=show_body), ""]
    if len(plan.claims) > 1:
        lines += [*_summary_table(plan), ""]
    if plan.quotas:
        lines += [*_quota_table(plan.quotas), ""]
    lines.append(_conclusion(plan))
    return lines


def _claim_lines(planned: Planned, *, why: str, show_body: bool) -> Iterator[str]:
    wish = planned.wish
    source = f"of Workspace {wish.workspace}" if wish.workspace else wish.source
    yield clean(f"{names.NODECLAIM_KIND} {wish.label} ({source}): {_OUTCOMES[planned.outcome]}")
    rows: list[tuple[str, str]] = []
    if planned.offer is not None:
        rows.append(("agent pool", planned.pool or "named when the claim is"))
        rows.append(("offer", offer_text(planned.offer)))
        rows += [("note", note) for note in planned.notes]
        rows += _labelled("next", [offer_text(offer) for offer in planned.placement.offers[1 : _NEXT + 1]])
        more = len(planned.placement.offers) - 1 - _NEXT
        if more > 0:
            rows.append(("", f"and {more} more"))
    else:
        rows.append(("why", f"{planned.reason}: {planned.message}"))
        if planned.placement.again_at is not None:
            rows.append(("again at", format_time(planned.placement.again_at)))
    rows += _labelled("left out", [_left_out_text(entry) for entry in shown_left_out(planned, why=why)])
    yield from fields(rows)
    if show_body and planned.body is not None:
        yield "  body (the API server gives the claim's UID and creation time)"
        # safe_dump escapes what a terminal would obey.
        yield from (f"    {line}" for line in yaml.safe_dump(planned.body, sort_keys=True, width=110).splitlines())


def _labelled(label: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    return [("" if index else label, text) for index, text in enumerate(texts)]


def shown_left_out(planned: Planned, *, why: str) -> list[LeftOut]:
    """Return the sizes to explain."""
    if why == "none":
        return []
    return [entry for entry in planned.placement.left_out if why == "all" or entry.because.may_pass]


def offer_text(offer: Offer) -> str:
    """Return the offer in one line."""
    size = offer.size
    parts = [f"{size.name}, {offer.capacity_type}"]
    if size.gpu_count:
        memory = f" {round(size.gpu_memory_gib)} GiB" if size.gpu_memory_gib else ""
        parts.append(f"{size.gpu_count} x {size.gpu_name or size.gpu_resource}{memory}")
    parts.append(f"zone {' or '.join(offer.zones)}" if offer.zones else "regional")
    if offer.os_disk_gib:
        parts.append(f"{offer.os_disk_gib} GiB OS disk")
    parts.append(f"{money(offer.price)} $/h")
    return ", ".join(parts)


def _left_out_text(entry: LeftOut) -> str:
    # Messages mostly name the size, but not always first; who looks for one looks at the front.
    spot = f" as {entry.capacity_type}" if entry.capacity_type else ""
    return f"{entry.size}{spot}: {entry.message}"


def _summary_table(plan: Plan) -> list[str]:
    rows = []
    for planned in plan.claims:
        offer = planned.offer
        rows.append(
            [
                planned.wish.label,
                planned.pool or "-",
                offer.size.name if offer else "-",
                offer.capacity_type if offer else "-",
                money(offer.price) if offer else "-",
                planned.outcome.value if offer else f"{planned.outcome.value}: {planned.reason}",
            ]
        )
    return table(("CLAIM", "POOL", "SIZE", "CAPACITY", "$/H", "OUTCOME"), rows, right=("$/H",))


def _quota_table(quotas: Sequence[QuotaChange]) -> list[str]:
    rows = [
        [
            title(change.usage),
            *(str(n) for n in (change.usage.limit, change.usage.used, change.held, change.before)),
            *(str(n) for n in (change.takes, change.after)),
        ]
        for change in quotas
    ]
    header = ("QUOTA (vCPUs)", "LIMIT", "USED", "HELD", "LEFT", "TAKES", "AFTER")
    return table(header, rows, right=header[1:])


def _conclusion(plan: Plan) -> str:
    created = sum(planned.offer is not None for planned in plan.claims)
    unknown = f" and {plan.unpriced} of unknown price" if plan.unpriced else ""
    unserved = sum(served.problem is not None for served in plan.workspaces)
    told = (
        [f"{created} of {len(plan.claims)} would be created: {money(plan.price)} $/h{unknown}."] if plan.claims else []
    )
    if unserved:
        told.append(f"{unserved} of {len(plan.workspaces)} Workspaces cannot be served.")
    # Brought Nodes may do for all of them.
    return " ".join(told) or "No NodeClaim would be created."


def plan_document(plan: Plan, *, location: str, why: str, show_body: bool) -> dict[str, Any]:
    """Return the plan for scripts; what is not known is null."""
    return {
        "region": location,
        "workspaces": [workspace_dict(served, show_body=show_body) for served in plan.workspaces],
        "claims": [_claim_dict(planned, why=why, show_body=show_body) for planned in plan.claims],
        "quotas": [
            {
                "name": change.usage.name,
                "limit": change.usage.limit,
                "used": change.usage.used,
                "held": change.held,
                "left": change.before,
                "takes": change.takes,
                "leftAfter": change.after,
            }
            for change in plan.quotas
        ],
        "pricePerHour": float(plan.price),
        "unpriced": plan.unpriced,
        "exitCode": int(plan.exit_code),
    }


def _claim_dict(planned: Planned, *, why: str, show_body: bool) -> dict[str, Any]:
    placement = planned.placement
    result: dict[str, Any] = {
        "name": planned.wish.label,
        "kind": names.NODECLAIM_KIND,
        "workspace": planned.wish.workspace or None,
        "source": planned.wish.source,
        "outcome": planned.outcome.value,
        "agentPool": planned.pool or None,
        "offer": _offer_dict(planned.offer) if planned.offer else None,
        "nextOffers": [_offer_dict(offer) for offer in placement.offers[1:]] if planned.offer else [],
        "leftOut": [_left_out_dict(entry) for entry in shown_left_out(planned, why=why)],
        "reason": planned.reason or None,
        "message": planned.message or None,
        "againAt": format_time(placement.again_at) if placement.again_at else None,
        "notes": list(planned.notes),
    }
    if show_body:
        result["body"] = planned.body
    return result


def _offer_dict(offer: Offer) -> dict[str, Any]:
    return {
        "vmSize": offer.size.name,
        "capacityType": offer.capacity_type,
        "gpu": offer.size.gpu_name or None,
        "gpus": offer.size.gpu_count,
        "vcpus": offer.size.vcpus or None,
        "zones": list(offer.zones),
        "osDiskGiB": offer.os_disk_gib,
        "pricePerHour": None if offer.price is None else float(offer.price),
    }


def _left_out_dict(entry: LeftOut) -> dict[str, Any]:
    return {
        "vmSize": entry.size,
        "capacityType": entry.capacity_type or None,
        "because": entry.because.value,
        "message": entry.message,
        "until": format_time(entry.until) if entry.until else None,
    }
