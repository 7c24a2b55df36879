"""`provisioner quota`: the vCPU quotas of the region, and how many VMs still fit."""

import argparse
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.quota import REGIONAL_USAGE, SPOT_USAGE, Usage
from provisioner.azure.connect import connect
from provisioner.commands import output
from provisioner.commands.exits import Exit, Trouble
from provisioner.commands.inputs import azure_settings
from provisioner.commands.room import Usages, has_gpu, left, room, title
from provisioner.commands.survey import Wanted, survey
from provisioner.commands.text import table
from provisioner.placement.labels import fold_gpu
from provisioner.placement.quota import RegionQuota
from provisioner.placement.size import Size

_HEADER: Final = ("QUOTA", "LIMIT", "USED", "LEFT", "FITS")
_RIGHT: Final = ("LIMIT", "USED", "LEFT")
_REGIONAL: Final = (REGIONAL_USAGE.lower(), SPOT_USAGE.lower())
_SCOPES: Final = {REGIONAL_USAGE.lower(): "regional", SPOT_USAGE.lower(): "spot"}


@dataclass(frozen=True, kw_only=True)
class QuotaRow:
    """One quota, and of the sizes in it that can be created at all how many more fit, the smallest first."""

    usage: Usage
    fits: tuple[tuple[Size, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Whether so many VMs of a size can be created; `message` says what keeps them from it."""

    size: str
    count: int
    spot: bool
    vms: int
    message: str

    @property
    def fits(self) -> bool:
        """Tell whether they can be."""
        return not self.message


async def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Show the quotas. Raises ArmFailure where Azure does not give them."""
    if (options.require is None) != (options.size is None):
        raise Trouble("--require N and --size SIZE go together: `--require 2 --size Standard_NC24ads_A100_v4`.")
    if options.spot and options.require is None:
        raise Trouble("--spot goes with --require and --size.")
    settings = azure_settings(options, environment)
    wanted = Wanted(region=options.region or "", prices=False, needs_sizes=True, needs_usages=True)
    async with connect(settings) as session:
        found = await survey(session, prices_at="", wanted=wanted)
    for note in found.notes:
        output.note(note)
    rows = quota_rows(
        found.sizes.all(),
        found.usages or {},
        everything=options.all,
        family=options.family or "",
        today=datetime.now(UTC).date().isoformat(),
    )
    answer = None
    if options.require is not None:
        size = found.size(options.size)
        answer = require(size, found.usages or {}, count=options.require, spot=options.spot, region=found.location)
        rows = [row for row in rows if row.usage.name.lower() in (size.family.lower(), *_REGIONAL)]
    if options.output == "table":
        lines = quota_lines(rows, width=output.width()) or [f"No quota in {found.location} is named like that."]
        output.write_lines([*lines, *(["", _sentence(answer)] if answer else [])])
    else:
        document: dict[str, Any] = {"region": found.location, "quotas": [_row_dict(row) for row in rows]}
        if answer:
            document["require"] = _answer_dict(answer)
        output.write(output.document(document, form=options.output))
    return Exit.DONE if answer is None or answer.fits else Exit.NOT_NOW


def quota_rows(sizes: Collection[Size], usages: Usages, *, everything: bool, family: str, today: str) -> list[QuotaRow]:
    """Return the quotas to show by name, those of the whole region last.

    Those of families with GPU sizes that can be created, by the date `today`, unless `everything`; `family` keeps to
    those that have it in their name.
    """
    by_family: dict[str, list[Size]] = defaultdict(list)
    known = set()
    for size in sizes:
        known.add(size.family.lower())
        if not size.restriction and not (size.retired and size.retired <= today):
            by_family[size.family.lower()].append(size)
    wanted = fold_gpu(family)
    with_gpus = {name for name, members in by_family.items() if any(map(has_gpu, members))}
    families = sorted(known if everything else with_gpus)
    rows = [_row(usages[name], by_family.get(name, []), usages) for name in families if name in usages]
    rows += [QuotaRow(usage=usages[name]) for name in _REGIONAL if name in usages]
    return [row for row in rows if wanted in fold_gpu(f"{row.usage.name} {row.usage.localized}")]


def _row(usage: Usage, members: Sequence[Size], usages: Usages) -> QuotaRow:
    counted = ((size, room(size, usages, spot=False)) for size in members)
    fits = ((size, vms) for size, vms in counted if vms is not None)
    return QuotaRow(usage=usage, fits=tuple(sorted(fits, key=lambda fit: (fit[0].vcpus, fit[0].name))))


def quota_lines(rows: Sequence[QuotaRow], *, width: int | None = None) -> list[str]:
    """Return the table, nothing where there are no quotas."""
    cells = [
        [title(row.usage), str(row.usage.limit), str(row.usage.used), str(left(row.usage)), _fits(row)] for row in rows
    ]
    return table(_HEADER, cells, right=_RIGHT, width=width) if cells else []


def _fits(row: QuotaRow) -> str:
    if not row.fits:
        return "-"
    some = [f"{vms} x {size.name}" for size, vms in row.fits if vms]
    smallest = row.fits[0][0]
    return ", ".join(some) or f"none: {smallest.name} needs {smallest.vcpus}"


def require(size: Size, usages: Usages, *, count: int, spot: bool, region: str) -> Answer:
    """Return whether so many more VMs of the size can be created. Raises Trouble where that cannot be known."""
    vms = room(size, usages, spot=spot)
    if vms is None:
        raise Trouble(f"{size.name}: Azure tells no quota of family {size.family or 'unknown'}.", code=Exit.FAILED)
    message = ""
    if spot and not size.sells_spot:
        message = f"{size.name} is not sold as spot."
    elif size.restriction:
        message = size.restriction
    elif vms < count:
        capacity_type = names.CAPACITY_TYPE_SPOT if spot else names.CAPACITY_TYPE_ON_DEMAND
        # So many VMs at once are to a quota what one is that has the vCPUs of them all.
        together = replace(size, vcpus=size.vcpus * count)
        shortage = RegionQuota(usages=usages, region=region).shortage(together, capacity_type=capacity_type)
        message = shortage.message if shortage else ""
    return Answer(size=size.name, count=count, spot=spot, vms=vms, message=message)


def _sentence(answer: Answer) -> str:
    what = f"{answer.count} x {answer.size}{' as spot' if answer.spot else ''}"
    verdict = "fits" if answer.count == 1 else "fit"
    return f"{what}: {verdict if answer.fits else answer.message} (quota left for {answer.vms})"


def _answer_dict(answer: Answer) -> dict[str, Any]:
    return {
        "size": answer.size,
        "count": answer.count,
        "spot": answer.spot,
        "fits": answer.fits,
        "vmsThatFit": answer.vms,
        "message": answer.message or None,
    }


def _row_dict(row: QuotaRow) -> dict[str, Any]:
    return {
        "name": row.usage.name,
        "displayName": row.usage.localized or title(row.usage),
        "scope": _SCOPES.get(row.usage.name.lower(), "family"),
        "limit": row.usage.limit,
        "used": row.usage.used,
        "left": left(row.usage),
        "fits": [{"size": size.name, "vms": vms} for size, vms in row.fits],
    }
