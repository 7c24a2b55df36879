"""What safetensors files tell of themselves without being loaded: eight bytes of length, then JSON with every shape."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# The format's own limit of its header.
_LARGEST: Final = 100_000_000


class Unreadable(ValueError):
    """The file is no safetensors file, or cut short."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor's type as the format names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> Mapping[str, Tensor]:
    """Return the file's tensors by name. Raises Unreadable, OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_LARGEST, size - 8):
            raise Unreadable(f"{path.name} is no safetensors file, or incomplete")
        try:
            header = json.loads(file.read(length))
            tensors = {
                str(name): Tensor(dtype=str(entry["dtype"]), shape=tuple(int(number) for number in entry["shape"]))
                for name, entry in header.items()
                if name != "__metadata__"
            }
            end = max((int(e["data_offsets"][1]) for n, e in header.items() if n != "__metadata__"), default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise Unreadable(f"{path.name} has a header that cannot be read") from error
    if 8 + length + end != size:
        raise Unreadable(f"{path.name} is incomplete: {size} bytes of {8 + length + end}")
    return tensors
