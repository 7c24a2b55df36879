"""`serving pull IMAGE DIRECTORY`: the files of an image that carries data, an adapter or a data set.

Two layouts are known: an image with its files under /data, as KAITO's adapters are, and an artifact whose layers are
the files themselves, named by their title, as `oras push` makes them.
"""

import asyncio
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from provisioner.serving import credentials, reference
from provisioner.serving.archive import Room, check_name, unpack, write
from provisioner.serving.environment import DATA
from provisioner.serving.problem import Problem
from provisioner.serving.registry import Repository

_log: Final = logging.getLogger(__name__)
TITLE: Final = "org.opencontainers.image.title"
_UNPACK: Final = "io.deis.oras.content.unpack"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_LAYERS: Final = 256
# Bytes of one layer as it comes, and of all files that come out.
_LARGEST_LAYER: Final = 64 << 30
_LARGEST: Final = 128 << 30
_PLATFORM: Final = ("linux", "amd64")


async def run(image: str, directory: Path, *, secrets: Path) -> None:
    """Write the image's files into the directory. Raises Problem."""
    named = reference.parse(image)
    found = await asyncio.to_thread(credentials.find, secrets, named.registry)
    try:
        work = await asyncio.to_thread(_work, directory)
    except OSError as error:
        raise Problem(f"{directory} cannot be written: {error.strerror}") from error
    try:
        async with Repository(named, credentials=found) as repository:
            number = await _pull(repository, named, directory, work)
    except OSError as error:
        raise Problem(f"{named}: {error.strerror or error} while writing to {directory}") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
    _log.info("%s: %d files", named, number)


async def _pull(repository: Repository, named: reference.Reference, directory: Path, work: Path) -> int:
    manifest = await repository.manifest(named.version)
    if "manifests" in manifest:
        manifest = await repository.manifest(_choose(manifest["manifests"], named))
    layers = manifest.get("layers")
    if not isinstance(layers, list) or not 0 < len(layers) <= _MOST_LAYERS:
        raise Problem(f"{named}: it has no layers that can be read")
    room, written = Room(_LARGEST), 0
    for number, layer in enumerate(layers):
        digest, size = (layer.get("digest"), layer.get("size")) if isinstance(layer, dict) else (None, None)
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest) or not isinstance(size, int):
            raise Problem(f"{named}: a layer has no digest of SHA-256, or no size")
        if not 0 <= size <= _LARGEST_LAYER:
            raise Problem(f"{named}: a layer has {size} bytes, more than may be pulled")
        blob = work / f"blob-{number}"
        await repository.download(digest, blob, limit=size)
        written += await asyncio.to_thread(_place, blob, directory, layer, room)
        blob.unlink()
    if not written:
        raise Problem(f"{named}: it has no files under {DATA}")
    return written


def _work(directory: Path) -> Path:
    """Make a directory for what is on its way, beside the files: the room is there."""
    directory.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=".pull-", dir=directory))


def _place(blob: Path, directory: Path, layer: Mapping[str, Any], room: Room) -> int:
    notes = layer.get("annotations")
    title = notes.get(TITLE) if isinstance(notes, dict) else None
    if not isinstance(title, str) or not title:
        return unpack(blob, directory, under=DATA.strip("/"), room=room)
    if isinstance(notes, dict) and notes.get(_UNPACK) == "true":
        return unpack(blob, directory, under="", room=room)
    name = PurePosixPath(title)
    check_name(name)
    if name.parts[0] == DATA.strip("/") and len(name.parts) > 1:
        name = PurePosixPath(*name.parts[1:])
    with blob.open("rb") as source:
        write(source, directory, name, room=room)
    return 1


def _choose(manifests: Any, named: reference.Reference) -> str:
    """Return the digest of the manifest for this platform; data has none, so the first is as good where none fits."""
    listed = [entry for entry in manifests if isinstance(entry, dict)] if isinstance(manifests, list) else []
    known = [entry for entry in listed if isinstance(entry.get("digest"), str) and _DIGEST.fullmatch(entry["digest"])]
    for entry in known:
        platform = entry.get("platform")
        if isinstance(platform, dict) and (platform.get("os"), platform.get("architecture")) == _PLATFORM:
            return str(entry["digest"])
    if not known:
        raise Problem(f"{named}: it is an empty list of images")
    return str(known[0]["digest"])
