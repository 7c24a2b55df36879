"""What a controller remembers: a search through everything that hangs on it."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

# Bounded by themselves, and there to remember what is gone: UIDs that must not come back, what
# was said of them, whose PUTs are counted.
_MEANT: Final = frozenset({"_gone", "_budget", "_said"})
# Large, and of sizes and counts alone.
_LEFT_OUT: Final = ("provisioner.gpus.", "provisioner.placement.", "provisioner.kube.metrics", "provisioner.azure.skus")


def remembered(root: object, names: Collection[str]) -> Iterator[str]:
    """Yield the path to each map, set or queue of the controller's that holds one of the names."""
    seen: set[int] = set()
    stack: list[tuple[str, object]] = [(type(root).__name__, root)]
    while stack:
        path, value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping | set | frozenset | list | tuple | deque):
            items: list[Any] = list(value) if not isinstance(value, Mapping) else [*value.keys(), *value.values()]
            for item in items:
                if isinstance(item, str):
                    if item in names:
                        yield f"{path}: {item}"
                elif not isinstance(item, int | float):
                    stack.append((f"{path}[]", item))
        elif type(value).__module__.startswith(_LEFT_OUT):
            continue
        elif type(value).__module__.startswith("provisioner.") or type(value).__name__ == "Queue":
            for name, each in _attributes(value):
                if name not in _MEANT:
                    stack.append((f"{path}.{name}", each))


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    yield from getattr(value, "__dict__", {}).items()
