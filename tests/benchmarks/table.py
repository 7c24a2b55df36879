"""`python -m tests.benchmarks.table`: what claims cost and how soon they are served, beside the peer's figures.

Prints markdown. Asserts no timing: a shared machine has none that could be held against anybody.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from fakes.cluster.binaries import BinariesMissing
from fakes.nodes.api import ApiError
from tests.benchmarks.cells import Run, Shape, impatient, killed, lifecycle, outage, quota
from tests.benchmarks.report import Figures, report
from tests.benchmarks.world import CONTROL_PLANES, BenchmarkError, tell

_UNAVAILABLE: Final = 2
# Simulated seconds a real second where Azure takes minutes.
_FAST: Final = 10.0
_SHAPES: Final[Mapping[str, Shape]] = {
    "1x5": Shape(claims=1, operation=5.0),
    "1x5-ra2": Shape(claims=1, operation=5.0, retry_after=2.0),
    "20x35": Shape(claims=20, operation=35.0),
    "50x35": Shape(claims=50, operation=35.0, at_rest=True),
    "50x120-ra10": Shape(claims=50, operation=120.0, retry_after=10.0, scale=_FAST),
    "50x125": Shape(claims=50, operation=125.0, scale=_FAST),
    "100x300": Shape(claims=100, operation=300.0, scale=_FAST),
    "100x300-ra30": Shape(claims=100, operation=300.0, retry_after=30.0, scale=_FAST),
    "1000x125": Shape(claims=1000, operation=125.0, at_rest=True, most_deletes=20),
}
_OTHERS: Final[Mapping[str, Callable[[Run], Awaitable[Figures]]]] = {
    "quota": quota,
    "kill": killed,
    "impatient": impatient,
    "outage": outage,
}
_QUICK: Final = ("1x5", "20x35", "50x125", "quota", "impatient", "outage")


async def measure(run: Run, cells: Iterable[str]) -> list[Figures]:
    """Run measurements one after the other. One that fails is left out, and said so."""
    found: list[Figures] = []
    for cell in cells:
        tell(f"{cell} ...\n")
        shape = _SHAPES.get(cell)
        try:
            found.append(await (lifecycle(run, shape) if shape is not None else _OTHERS[cell](run)))
        except (BenchmarkError, ApiError, TimeoutError) as error:
            tell(f"{cell}: {error}\n")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 0 when all came to their end, 1 when not, 2 where the control plane is not there."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.table", description=__doc__)
    every = (*_SHAPES, *_OTHERS)
    parser.add_argument("--cluster", choices=CONTROL_PLANES, default="real", help="which control plane")
    parser.add_argument(
        "--cells", nargs="+", choices=every, metavar="CELL", help=f"what to measure: {', '.join(every)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer cells and shorter looks: two minutes")
    parser.add_argument("--patience", type=float, default=900.0, help="real seconds for each wait (default: 900)")
    options = parser.parse_args(arguments)
    cells = options.cells or (_QUICK if options.quick else every)
    run = Run(cluster=options.cluster, quick=options.quick, patience=options.patience)
    load, begun = os.getloadavg()[0], datetime.now(UTC)
    try:
        found = asyncio.run(measure(run, cells))
    except BinariesMissing as error:
        tell(f"there is no {options.cluster} control plane: {error}\n")
        return _UNAVAILABLE
    title = (
        f"{begun:%Y-%m-%d}, {options.cluster} control plane, {os.cpu_count()} cores shared by all of it, load "
        f"{load:.1f} before."
    )
    sys.stdout.write("\n".join((title, "", *report(found), "")))
    return 0 if len(found) == len(cells) else 1


if __name__ == "__main__":
    sys.exit(main())
