"""Tiny models on disk, made by the serving environment's Python."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parents[2]


def make_model(directory: Path, *, python: Path, changes: Mapping[str, Any] | None = None) -> None:
    """Write a model of random weights, some seconds; `changes` are fields of its configuration. Raises RuntimeError."""
    ended = subprocess.run(
        [str(python), "-m", "fakes.serving.tiny", str(directory), json.dumps(dict(changes or {}))],
        cwd=_ROOT,
        env={"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "HOME": str(directory.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise RuntimeError(f"no model could be made: {ended.stderr[-2000:]}")
