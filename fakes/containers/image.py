"""What stands for a container image on this machine."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Values = Mapping[str, str]


async def _nothing(_root: Path, _environment: Values) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Image:
    """A program and its environment, as an image has them.

    `paths` are where programs are found, before the machine's own. `instead(root, address)` are variables that win over
    what the pod says: what a process has to be told that a container sees for itself. `fill(root, environment)` puts
    files into the container's mounts before it starts; `root` is what its / stands for.
    """

    entrypoint: tuple[str, ...]
    command: tuple[str, ...] = ()
    environment: Values = field(default_factory=dict)
    paths: tuple[Path, ...] = ()
    instead: Callable[[Path, str], Values] = lambda _root, _address: {}
    fill: Callable[[Path, Values], Awaitable[None]] = _nothing
