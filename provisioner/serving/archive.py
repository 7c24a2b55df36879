"""Layers of images: tar files of strangers, of which only plain files under one directory are wanted."""

import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, Final

from provisioner.serving.problem import Problem

_CHUNK: Final = 1 << 20
_WHITEOUT: Final = ".wh."
_MOST_MEMBERS: Final = 100_000


class Room:
    """How many bytes may still be written: compressed ones can become any number."""

    def __init__(self, bytes_left: int) -> None:
        self._left = bytes_left

    def take(self, number: int) -> None:
        """Take some of it. Raises Problem when there is none."""
        self._left -= number
        if self._left < 0:
            raise Problem("the image has more in it than may be unpacked")


def unpack(path: Path, target: Path, *, under: str, room: Room) -> int:
    """Write the archive's files below `under` (a directory's name, or empty for all) to `target`; return their number.

    Links, devices and what would lie elsewhere are refused, whiteouts of earlier layers' files remove them. Raises
    Problem, OSError.
    """
    written = 0
    try:
        with tarfile.open(path, mode="r:*") as archive:
            for number, member in enumerate(archive):
                if number > _MOST_MEMBERS:
                    raise Problem("the image has too many files in it")
                inside = _inside(member.name, under)
                if inside is None or member.isdir():
                    continue
                if inside.name.startswith(_WHITEOUT):
                    (target / inside.parent / inside.name.removeprefix(_WHITEOUT)).unlink(missing_ok=True)
                    continue
                if not member.isfile():
                    raise Problem(f"the image has {member.name[:100]!r} in it, which is no plain file")
                source = archive.extractfile(member)
                if source is None:
                    raise Problem(f"the image's {member.name[:100]!r} cannot be read")
                write(source, target, inside, room=room)
                written += 1
    except (tarfile.TarError, EOFError) as error:
        raise Problem("a layer of the image is no tar file, or is packed in a way that is not known here") from error
    return written


def write(source: IO[bytes], target: Path, inside: PurePosixPath, *, room: Room) -> None:
    """Write a file below `target`. Raises Problem, OSError."""
    check_name(inside)
    path = target / inside
    path.parent.mkdir(parents=True, exist_ok=True)
    # `target` is empty to begin with and nothing but directories and plain files is made in it: nothing leads outside.
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        while chunk := source.read(_CHUNK):
            room.take(len(chunk))
            file.write(chunk)


def check_name(name: PurePosixPath) -> None:
    """Raise Problem if a file of that name would not lie below the directory that it is written to."""
    if name.is_absolute() or not name.parts or ".." in name.parts or any("\0" in part for part in name.parts):
        raise Problem(f"the image has a file {str(name)[:100]!r} in it, which would lie elsewhere")


def _inside(name: str, under: str) -> PurePosixPath | None:
    """Return a member's name below `under`, None where it is not there."""
    path = PurePosixPath(name.removeprefix("./"))
    if not under:
        check_name(path) if path.parts else None
        return path if path.parts else None
    # Some builders write absolute names: of an image's own root, from which `under` is taken anyway.
    parts = [part for part in path.parts if part != "/"]
    if len(parts) < 2 or parts[0] != under:
        return None
    inside = PurePosixPath(*parts[1:])
    check_name(inside)
    return inside
