"""The controller as its users run it, under fire: killed, cut off, throttled, lied to; and all comes out right.

What happens is a script made from a seed. A seed that fails is played again by `SEED=7 make chaos-processes`, and
`SEEDS=1-50` plays more of them.
"""

import os
import sys
import time
from itertools import chain
from pathlib import Path

import pytest

from fakes.cluster.interface import ControlPlane
from tests.chaos.processes.deeds import Script
from tests.chaos.processes.invariants import doubled, lost, posthumous, revived, rewritten, unsettled
from tests.chaos.processes.script import LONGEST_DELAY, write
from tests.chaos.processes.stage import Stage, set_up
from tests.kube import eventually

# Real seconds: the controller's own pauses after refusals are real ones, and double.
PATIENCE = 90.0
# Simulated seconds from the controller's decision to the effect of a request that nothing delays.
HANDLING = 200.0


def seeds() -> list[int]:
    """Return the seeds that the environment asks for (`SEED=7`, `SEEDS=1-20,33`), by default a few."""
    wanted = os.environ.get("SEED") or os.environ.get("SEEDS") or "1-3"
    spans = [part.partition("-") for part in wanted.split(",")]
    return [seed for first, _, last in spans for seed in range(int(first), int(last or first) + 1)]


@pytest.mark.parametrize("seed", seeds())
async def test_nothing_is_lost_doubled_or_left(control_plane: ControlPlane, seed: int, tmp_path: Path) -> None:
    script = write(seed)
    sys.stdout.write(f"seed {seed}, again by: SEED={seed} make chaos-processes\n{script}\n")
    async with set_up(control_plane, log=tmp_path / "controller.log") as stage:
        began = time.monotonic()
        before = await stage.foreign()

        await stage.play(script, patience=PATIENCE)

        burnt = time.monotonic() - began
        await settled(stage)
        calm = time.monotonic() - began
        await stage.delete_all()
        await settled(stage)
        assert not (await stage.scene()).claims

        assert broken(stage, script) == []
        assert await stage.foreign() == before
        assert stage.controller.process.returncode is None
        assert "reconcile failed" not in stage.controller.log_text()
        sys.stdout.write(
            f"\nseed {seed}: {len(stage.fates.written)} claims; {burnt:.1f} s of fire, calm after {calm:.1f} s, "
            f"empty after {time.monotonic() - began:.1f} s\n"
            + "\n".join(f"{n:5} {what}" for what, n in sorted(stage.done.items()))
            + "\n"
        )


async def settled(stage: Stage) -> None:
    """Wait until nothing has yet to happen."""

    async def left() -> list[str]:
        return unsettled(await stage.scene(), stage.fates)

    await eventually(left, until=lambda seen: not seen, patience=PATIENCE, what="all has settled")


def broken(stage: Stage, script: Script) -> list[str]:
    """Return what should not have happened."""
    entries, history = stage.ledger.entries, stage.history
    return [
        *chain(
            rewritten(history),
            revived(history),
            doubled(entries, history),
            posthumous(entries, history, longest_delay=LONGEST_DELAY + HANDLING, late=script.late_puts),
            lost(history, stage.fates, slow_to_join=script.slow_to_join),
        )
    ]
