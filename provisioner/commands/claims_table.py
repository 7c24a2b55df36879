"""The claims as a table, as a document, and as a line for each change. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from provisioner.apis import names
from provisioner.commands.phases import ClaimStatus, Phase
from provisioner.commands.text import age, clean, cut, money, table

HEADER: Final = ("NAME", "POOL", "SIZE", "NODE", "PHASE", "SINCE", "$/H", "REASON")
_RIGHT: Final = ("SINCE", "$/H")
# What a narrow terminal can do without: a Node is named after its pool, and a pool mostly after its claim.
_OPTIONAL: Final = ("NODE", "POOL", "SIZE")
# Of a message in a line that is not cut by a terminal; KAITO shows as much.
_REASON_LENGTH: Final = 256
# Not a phase of a claim: what is said of one that has been released.
GONE: Final = "Gone"


def claim_lines(
    claims: Sequence[ClaimStatus], *, now: datetime, width: int | None = None, wide: bool = False
) -> list[str]:
    """Return the table, and under it how many there are and what they cost."""
    if not claims:
        return ["No NodeClaims of this provisioner."]
    rows = [_row(claim, phase=claim.phase, now=now, wide=wide) for claim in claims]
    lines = table(HEADER, rows, right=_RIGHT, width=None if wide else width, optional=_OPTIONAL)
    return [*lines, "", summary(claims)]


def change_lines(
    before: Mapping[str, ClaimStatus], claims: Sequence[ClaimStatus], *, now: datetime, wide: bool = False
) -> list[str]:
    """Return a line for each claim that is new, another than before, or gone; columns have a fixed width."""
    rows = [_row(claim, phase=claim.phase, now=now, wide=wide) for claim in changes(before, claims)]
    rows += [_row(claim, phase=GONE, now=now, wide=wide) for claim in gone(before, claims, now=now)]
    return [_fixed(row) for row in rows]


def changes(before: Mapping[str, ClaimStatus], claims: Sequence[ClaimStatus]) -> list[ClaimStatus]:
    """Return the claims that are new or another than before."""
    return [claim for claim in claims if before.get(claim.name) != claim]


def gone(before: Mapping[str, ClaimStatus], claims: Sequence[ClaimStatus], *, now: datetime) -> list[ClaimStatus]:
    """Return the claims that are no more, with nothing that they wait for or cost."""
    present = {claim.name for claim in claims}
    return [
        replace(claim, since=now, reason="", message="", runs=False, price=None)
        for name, claim in before.items()
        if name not in present
    ]


def header_line() -> str:
    """Return the header above lines of changes."""
    return _fixed(HEADER)


def summary(claims: Sequence[ClaimStatus]) -> str:
    """Return how many claims are in which phase, and what the VMs cost that there are."""
    counts = phase_counts(claims)
    parts = ", ".join(f"{count} {phase}" for phase, count in counts.items())
    total, unpriced = cost(claims)
    running = sum(claim.runs for claim in claims)
    unknown = f" and {unpriced} of unknown price" if unpriced else ""
    noun = "claim" if len(claims) == 1 else "claims"
    return f"{len(claims)} {noun}: {parts}. {running} with a VM, {money(total)} $/h{unknown}."


def phase_counts(claims: Sequence[ClaimStatus]) -> dict[str, int]:
    """Return how many claims are in each phase, in the order of the phases; those without any are left out."""
    counted = Counter(claim.phase for claim in claims)
    return {phase.value: counted[phase] for phase in Phase if counted[phase]}


def cost(claims: Sequence[ClaimStatus]) -> tuple[Decimal, int]:
    """Return what the VMs that there are cost an hour in US dollars, and how many have no known price."""
    running = [claim.price for claim in claims if claim.runs]
    return sum((price for price in running if price is not None), Decimal(0)), running.count(None)


def claims_document(claims: Sequence[ClaimStatus]) -> dict[str, Any]:
    """Return the claims for scripts."""
    total, unpriced = cost(claims)
    return {
        "claims": [claim.to_dict() for claim in claims],
        "phases": phase_counts(claims),
        "running": sum(claim.runs for claim in claims),
        "pricePerHour": float(total),
        "unpriced": unpriced,
    }


def _row(claim: ClaimStatus, *, phase: str, now: datetime, wide: bool) -> list[str]:
    spot = " (spot)" if claim.capacity_type == names.CAPACITY_TYPE_SPOT else ""
    reason = clean(claim.why)
    return [
        claim.name,
        claim.pool or "-",
        f"{claim.size or '-'}{spot}",
        claim.node or "-",
        phase,
        age(now - claim.since),
        "-" if claim.price is None and not claim.runs else money(claim.price),
        reason if wide else cut(reason, _REASON_LENGTH),
    ]


# Names of pools have 12 characters at most, those of Nodes made of them 34, of claims usually 11; longer ones shift
# the rest of their line, which an appended line cannot help.
_WIDTHS: Final = (12, 12, 28, 34, 12, 6, 8, 0)


def _fixed(row: Sequence[str]) -> str:
    return "  ".join(clean(cell).ljust(width) for cell, width in zip(row, _WIDTHS, strict=True)).rstrip()
