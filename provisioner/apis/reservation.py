"""Reserved capacity: of which VM sizes a capacity reservation group has reservations, and where."""

from typing import NamedTuple


class Reserved(NamedTuple):
    """VMs of one size in one place: `size` in lower case, `zone` its number, empty where they are in none."""

    size: str
    zone: str = ""
