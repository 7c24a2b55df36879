"""`provisioner skus`: the VM sizes of the region, the cheapest first."""

import argparse
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from provisioner.azure.connect import connect
from provisioner.commands import output
from provisioner.commands.exits import Exit
from provisioner.commands.inputs import azure_settings
from provisioner.commands.room import Usages, has_gpu, left, own_quota, room
from provisioner.commands.survey import Wanted, survey
from provisioner.commands.text import money, number, table
from provisioner.placement.labels import fold_gpu
from provisioner.placement.size import Size

_HEADER: Final = ("NAME", "GPU", "GPUS", "GPU MEM", "VCPUS", "MEM", "$/H", "ZONES", "QUOTA LEFT", "NOTES")
_RIGHT: Final = ("GPUS", "GPU MEM", "VCPUS", "MEM", "$/H", "QUOTA LEFT")

_OPTIONAL: Final = ("MEM", "VCPUS", "GPU MEM", "GPUS")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which sizes to list. `today` is a date such as `2026-11-21`: what has been retired by then is not available."""

    everything: bool = False
    gpu: str = ""
    min_gpu_memory_gib: float = 0.0
    available: bool = False
    spot: bool = False
    today: str = ""


async def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """List the sizes. Raises ArmFailure where Azure does not give them."""
    settings = azure_settings(options, environment)
    wanted = Wanted(region=options.region or "", all_prices=options.all, needs_sizes=True)
    async with connect(settings) as session:
        found = await survey(session, prices_at=settings.price_list, wanted=wanted)
    for note in found.notes:
        output.note(note)
    choice = Choice(
        everything=options.all,
        gpu=options.gpu or "",
        min_gpu_memory_gib=options.min_gpu_memory or 0.0,
        available=options.available,
        spot=options.spot,
        today=datetime.now(UTC).date().isoformat(),
    )
    usages = found.usages or {}
    sizes = chosen(found.sizes.all(), usages=usages, choice=choice)
    if options.output == "table":
        lines = sku_lines(sizes, usages=usages, choice=choice, width=output.width())
        output.write_lines(lines or [f"No VM size in {found.location} is like that."])
    else:
        entries = [sku_dict(size, usages=usages, choice=choice) for size in sizes]
        output.write(output.document({"region": found.location, "sizes": entries}, form=options.output))
    return Exit.DONE if sizes else Exit.NOT_NOW


def chosen(sizes: Collection[Size], *, usages: Usages, choice: Choice) -> list[Size]:
    """Return the sizes that are wanted, the cheapest first, those without a known price last."""
    wanted = [size for size in sizes if _is_wanted(size, choice)]
    if choice.available:
        wanted = [size for size in wanted if is_available(size, usages=usages, choice=choice)]
    return sorted(wanted, key=lambda size: _order(size, choice))


def _is_wanted(size: Size, choice: Choice) -> bool:
    if not (choice.everything or has_gpu(size)):
        return False
    if choice.gpu and not any(_mentions(name, choice.gpu) for name in (size.gpu_name, size.name)):
        return False
    return size.gpu_count * size.gpu_memory_gib >= choice.min_gpu_memory_gib


def _mentions(name: str, gpu: str) -> bool:
    """Tell whether a name has the GPU in it, however both are written: `A10` is not in `A100`, but in `A10_v5`."""
    return re.search(re.escape(fold_gpu(gpu)) + r"(?!\d)", fold_gpu(name)) is not None


def _order(size: Size, choice: Choice) -> tuple[bool, Decimal, int, str]:
    price = _price(size, choice)
    return price is None, price or Decimal(0), size.gpu_count, size.name


def _price(size: Size, choice: Choice) -> Decimal | None:
    return size.spot_price if choice.spot else size.price


def is_available(size: Size, *, usages: Usages, choice: Choice) -> bool:
    """Tell whether the subscription may create a VM of the size now, as far as is known; capacity is not."""
    if size.restriction or (size.retired and size.retired <= choice.today) or (choice.spot and not size.sells_spot):
        return False
    return room(size, usages, spot=choice.spot) != 0


def sku_lines(sizes: Sequence[Size], *, usages: Usages, choice: Choice, width: int | None = None) -> list[str]:
    """Return the table, nothing where there are no sizes."""
    rows = [
        [
            size.name,
            size.gpu_name or ("?" if has_gpu(size) else "-"),
            str(size.gpu_count) if size.gpu_count else ("?" if has_gpu(size) else "-"),
            number(round(size.gpu_memory_gib)) if size.gpu_memory_gib else "-",
            str(size.vcpus or "?"),
            number(size.memory_gib) if size.memory_gib else "?",
            money(_price(size, choice)),
            _zones(size),
            _quota(size, usages, spot=choice.spot),
            "; ".join(_notes(size, choice)),
        ]
        for size in sizes
    ]
    return table(_HEADER, rows, right=_RIGHT, width=width, optional=_OPTIONAL) if rows else []


def _zones(size: Size) -> str:
    return "?" if size.zones is None else ",".join(size.zones) or "-"


def _quota(size: Size, usages: Usages, *, spot: bool) -> str:
    own = own_quota(size, usages, spot=spot)
    return "?" if own is None else f"{left(own)}/{own.limit}"


def _notes(size: Size, choice: Choice) -> list[str]:
    notes = []
    if size.retired:
        successors = f" -> {', '.join(size.successors)}" if size.successors else ""
        notes.append(f"{'retired' if size.retired <= choice.today else 'retires'} {size.retired}{successors}")
    if size.architecture != "amd64":
        notes.append(size.architecture)
    if choice.spot and not size.sells_spot:
        notes.append("not sold as spot")
    if size.restriction:
        notes.append(size.restriction)
    return notes


def sku_dict(size: Size, *, usages: Usages, choice: Choice) -> dict[str, Any]:
    """Return the size for scripts; what is not known is null."""
    own = own_quota(size, usages, spot=choice.spot)
    return {
        "name": size.name,
        "gpu": size.gpu_name or None,
        "gpus": size.gpu_count,
        "gpuMemoryGiB": size.gpu_memory_gib or None,
        "vcpus": size.vcpus or None,
        "memoryGiB": size.memory_gib or None,
        "architecture": size.architecture,
        "family": size.family or None,
        "zones": None if size.zones is None else list(size.zones),
        "pricePerHour": None if size.price is None else float(size.price),
        "spotPricePerHour": None if size.spot_price is None else float(size.spot_price),
        "sellsSpot": size.sells_spot,
        "quota": None if own is None else {"name": own.name, "limit": own.limit, "used": own.used, "left": left(own)},
        "vmsThatFit": room(size, usages, spot=choice.spot),
        "available": is_available(size, usages=usages, choice=choice),
        "restriction": size.restriction or None,
        "retired": size.retired or None,
        "successors": list(size.successors),
    }
