"""How far the server is: told over HTTP by the gate, and in a file to whoever comes from outside the process."""

import json
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from provisioner.serving.problem import one_line


class Phase(StrEnum):
    """What a server does."""

    STARTING = "starting"
    GATHERING = "gathering"
    LOADING = "loading"
    WARMING = "warming"
    SERVING = "serving"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(kw_only=True)
class State:
    """The state of this pod's server. `instance` is another one after each start, by which a group knows its members.

    `left_out` are adapters that are not served, with the reason; `members` are the instances of the group's workers
    that the leader has begun with, by rank; `progress` is for people.
    """

    file: Path | None = None
    rank: int = 0
    instance: str = field(default_factory=lambda: uuid.uuid4().hex)
    phase: Phase = Phase.STARTING
    message: str = ""
    progress: str = ""
    downloaded_bytes: int = 0
    expected_bytes: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    members: dict[int, str] = field(default_factory=dict)

    def enter(self, phase: Phase, message: str = "") -> None:
        """Go over to a phase; how far the one before has come is of no interest any more."""
        self.phase, self.message, self.progress = phase, one_line(message), ""
        self.write()

    def to_json(self) -> dict[str, Any]:
        """Return what others are told."""
        return {
            "state": str(self.phase),
            "message": self.message,
            "progress": self.progress,
            "rank": self.rank,
            "instance": self.instance,
            "members": {str(rank): instance for rank, instance in self.members.items()},
            "downloaded_bytes": self.downloaded_bytes,
            "expected_bytes": self.expected_bytes,
            "adapters_left_out": self.left_out,
        }

    def write(self) -> None:
        """Write the file; a disk that is full is told of elsewhere."""
        if self.file is None:
            return
        temporary = self.file.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(self.to_json()) + "\n", encoding="utf-8")
            temporary.replace(self.file)
        except OSError:
            return
