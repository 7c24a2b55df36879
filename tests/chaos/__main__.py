"""Runs many seeds, or one with its time line: `python -m tests.chaos --help`."""

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.chaos.simulation import Outcome, simulate


def main() -> int:
    """Run what the arguments say; 1 where an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--trace", action="store_true", help="print everything that happens; with --seed")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes to run them in")
    arguments = parser.parse_args()
    started = time.monotonic()
    outcomes = _run(arguments)
    total: Counter[str] = Counter()
    hours, seeds, failed = 0.0, 0, []
    for outcome in outcomes:
        seeds += 1
        hours += outcome.hours
        total += outcome.counts
        if outcome.broken:
            failed.append(outcome.seed)
            _say(f"seed {outcome.seed}: {outcome.broken}\n    replay: {replay(outcome.seed)}")
    seconds = time.monotonic() - started
    _say(f"seeds {seeds}, virtual hours {hours:.0f}, {seconds * 1000 / max(seeds, 1):.1f} ms a seed")
    for name, number in sorted(total.items()):
        _say(f"  {name:<40} {number}")
    _say(f"failures {len(failed)}{': ' + ' '.join(map(str, failed[:50])) if failed else ''}")
    return 1 if failed else 0


def replay(seed: int) -> str:
    """Return the command that shows a seed's history."""
    return f"python -m tests.chaos --seed {seed} --trace"


def _run(arguments: argparse.Namespace) -> Iterator[Outcome]:
    if arguments.seed is not None:
        tell = _say if arguments.trace else None
        yield simulate(arguments.seed, tell=tell)
        return
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    if arguments.jobs == 1:
        yield from map(simulate, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, maxtasksperchild=5000) as pool:
        yield from pool.imap_unordered(simulate, seeds, chunksize=20)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
