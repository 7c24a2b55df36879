"""The adapter that tuning has made, as an image that `serving pull` and KAITO's pullers read: files under /data.

The archive has no times and no owners in it, so that the same adapter is the same image: what was pushed before a
program died is found and not sent again.
"""

import asyncio
import hashlib
import json
import logging
import os
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from provisioner.serving import credentials, reference
from provisioner.serving.environment import DATA
from provisioner.serving.problem import Problem
from provisioner.serving.registry import MANIFEST, Repository

_log: Final = logging.getLogger(__name__)
MODEL_NAME: Final = "sh.kaito.model.name"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_CHUNK: Final = 1 << 20


async def run(image: str, files: Sequence[Path], *, model: str, secrets: Path, work: Path) -> str:
    """Push the files; return the image's digest. `work` is a directory for the archive. Raises Problem."""
    named = reference.parse(image)
    if named.digest:
        raise Problem(f"{named}: an image is pushed to a tag, not to a digest")
    found = await asyncio.to_thread(credentials.find, secrets, named.registry)
    try:
        with tempfile.TemporaryDirectory(prefix=".push-", dir=work) as scratch:
            layer, config = Path(scratch) / "layer", Path(scratch) / "config"
            await asyncio.to_thread(_pack, files, layer)
            digest = await asyncio.to_thread(_digest, layer)
            config.write_text(json.dumps(_config(digest), sort_keys=True), encoding="utf-8")
            manifest: dict[str, Any] = {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": await _descriptor(config, _CONFIG),
                "layers": [await _descriptor(layer, _LAYER)],
                "annotations": {MODEL_NAME: model},
            }
            async with Repository(named, credentials=found, writes=True) as repository:
                for path, descriptor in ((config, manifest["config"]), (layer, manifest["layers"][0])):
                    if not await repository.upload(descriptor["digest"], path):
                        _log.info("%s: %s is there already", named, descriptor["digest"])
                pushed = await repository.put_manifest(named.tag, manifest)
    except OSError as error:
        raise Problem(f"{named}: {error.strerror or error}") from error
    _log.info("%s is pushed: %s", named, pushed)
    return pushed


def _pack(files: Sequence[Path], target: Path) -> None:
    # GNU's format alone has no limits of names and sizes without headers that carry times.
    with tarfile.open(target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for file in sorted(files, key=lambda path: path.name):
            member = tarfile.TarInfo(f"{DATA.strip('/')}/{file.name}")
            member.size, member.mode = file.stat().st_size, 0o644
            with file.open("rb") as source:
                archive.addfile(member, source)


def _config(layer: str) -> dict[str, Any]:
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    }


async def _descriptor(path: Path, media_type: str) -> dict[str, Any]:
    return {
        "mediaType": media_type,
        "digest": await asyncio.to_thread(_digest, path),
        "size": await asyncio.to_thread(os.path.getsize, path),
    }


def _digest(path: Path) -> str:
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
    return f"sha256:{hashed.hexdigest()}"
