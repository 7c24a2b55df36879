"""Histories by the thousand: whatever goes wrong in them, what must hold holds, and in the end nothing is left over."""

import os
import subprocess
import sys

import pytest

from tests.chaos.__main__ import replay
from tests.chaos.flaws import FLAWS
from tests.chaos.ill_luck import ILL_LUCK
from tests.chaos.program import Flaw
from tests.chaos.simulation import simulate

_BLOCKS = 20
_IN_A_BLOCK = 50
# Histories within which a flaw has to show.
_ENOUGH = 300


@pytest.mark.parametrize("block", range(_BLOCKS))
def test_everything_ends_well_in_every_history(block: int) -> None:
    seeds = range(block * _IN_A_BLOCK, (block + 1) * _IN_A_BLOCK)
    broken = [outcome for outcome in map(simulate, seeds) if outcome.broken]
    assert not broken, "\n".join(f"seed {each.seed}: {each.broken}; see {replay(each.seed)}" for each in broken)


@pytest.mark.parametrize("luck", ILL_LUCK.values(), ids=ILL_LUCK)
def test_everything_ends_well_with_the_worst_of_luck(luck: Flaw) -> None:
    broken = [outcome for seed in range(_IN_A_BLOCK) if (outcome := simulate(seed, flaw=luck)).broken]
    assert not broken, "\n".join(f"seed {each.seed}: {each.broken}" for each in broken)


def test_a_seed_is_the_same_history_wherever_it_runs() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seed", "17", "--trace"]
    runs = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        for seed in ("1", "2")
    ]
    first, second = (run.stdout.partition("\nseeds ")[0] for run in runs)
    assert first == second
    assert "all claims are deleted" in first


@pytest.mark.parametrize(("flaw", "said"), FLAWS.values(), ids=FLAWS)
def test_a_controller_with_a_flaw_is_found_out(flaw: Flaw, said: str) -> None:
    reports = (simulate(seed, flaw=flaw).broken for seed in range(_ENOUGH))
    assert any(said in report for report in reports)
