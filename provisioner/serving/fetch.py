"""`serving fetch DIRECTORY`: the data that DATA_URLS names, into a directory.

What was fetched in part before is gone on with where the server can; `#sha256=...` behind a URL is checked. The queries
of URLs may be signatures: they are in no line of the log.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from provisioner.serving.addresses import NotPublic, PublicResolver, check, shown
from provisioner.serving.environment import urls_from_env
from provisioner.serving.problem import Problem

_log: Final = logging.getLogger(__name__)
KINDS: Final = (".parquet", ".json", ".jsonl", ".csv", ".arrow")
_NAME: Final = re.compile(r"[A-Za-z0-9_][\w.,+@ -]{0,199}", re.ASCII)
_SHA256: Final = re.compile(r"sha256=([0-9a-fA-F]{64})")
# Bytes of all files together.
LARGEST: Final = 200 << 30
_CHUNK: Final = 1 << 20
_REDIRECTS: Final = 10
_ATTEMPTS: Final = 5
_PAUSE: Final = 1.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=60)
# For a registry of data inside of the cluster, which whoever runs the cluster must allow; tests fetch from loopback.
_ANY_ADDRESS: Final = "FETCH_ANY_ADDRESS"


class Interrupted(Exception):
    """The server broke off; going on may help."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file to be fetched; `sha256` is empty where nobody has said it."""

    url: URL
    name: str
    sha256: str = ""


def sources(urls: tuple[str, ...]) -> tuple[Source, ...]:
    """Return what there is to fetch. Raises Problem."""
    found: dict[str, Source] = {}
    for text in urls:
        try:
            url = URL(text)
        except ValueError as error:
            raise Problem("DATA_URLS has an entry that is no URL") from error
        fragment = _SHA256.fullmatch(url.fragment)
        if url.fragment and not fragment:
            raise Problem(f"{shown(url)}: what follows # must be sha256= and 64 hexadecimal digits")
        name = url.path.rpartition("/")[2]
        if not _NAME.fullmatch(name) or not name.lower().endswith(KINDS):
            raise Problem(f"{shown(url)}: its path must end in the name of a file of {', '.join(KINDS)}")
        if name in found:
            raise Problem(f"two of DATA_URLS end in {name}")
        found[name] = Source(url=url.with_fragment(None), name=name, sha256=fragment[1].lower() if fragment else "")
    return tuple(found.values())


async def run(directory: Path, *, variables: Mapping[str, str], pause: float = _PAUSE) -> None:
    """Fetch it all. Raises Problem, BadEnvironment."""
    wanted = sources(urls_from_env(variables))
    if not wanted:
        raise Problem("DATA_URLS is missing: where the data is to be fetched from")
    any_address = variables.get(_ANY_ADDRESS) == "true"
    for source in wanted:
        check(source.url, any_address=any_address)
    connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver() if any_address else PublicResolver())
    left = LARGEST
    try:
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, trust_env=False) as session:
            for source in wanted:
                left -= await _fetch(session, source, directory, limit=left, any_address=any_address, pause=pause)
    except OSError as error:
        raise Problem(f"{error.strerror or error} while writing to {directory}") from error


async def _fetch(
    session: aiohttp.ClientSession, source: Source, directory: Path, *, limit: int, any_address: bool, pause: float
) -> int:
    target, part = directory / source.name, directory / f".{source.name}.part"
    if target.is_file():
        # Of an earlier run: renamed when it was whole.
        return target.stat().st_size
    for attempt in range(_ATTEMPTS):
        try:
            await _go_on(session, source, part, limit=limit, any_address=any_address)
            break
        except NotPublic as error:
            raise Problem(f"{shown(source.url)}: {error}") from error
        except aiohttp.ClientConnectorError as error:
            # What the resolver has raised is inside.
            if isinstance(error.os_error, NotPublic) or isinstance(error.__cause__, NotPublic):
                raise Problem(f"{shown(source.url)} is not a public address") from error
            reason: Exception = error
        except (aiohttp.ClientError, TimeoutError, Interrupted) as error:
            reason = error
        if attempt + 1 == _ATTEMPTS:
            raise Problem(f"{shown(source.url)} cannot be fetched: {type(reason).__name__}: {reason}")
        _log.warning("%s: %s, going on", shown(source.url), type(reason).__name__)
        await asyncio.sleep(pause * 2**attempt)
    if source.sha256 and await asyncio.to_thread(_sha256, part) != source.sha256:
        part.unlink()
        raise Problem(f"{shown(source.url)}: its SHA-256 is not the one that was said")
    part.rename(target)
    size = target.stat().st_size
    _log.info("%s: %d bytes", source.name, size)
    return size


async def _go_on(session: aiohttp.ClientSession, source: Source, part: Path, *, limit: int, any_address: bool) -> None:
    note = part.with_suffix(".etag")
    held = await asyncio.to_thread(_held, part, note)
    headers = {"Accept-Encoding": "identity"}
    if held:
        # Without the same validator the server sends it all anew: halves of two files are none.
        headers |= {"Range": f"bytes={held}-", "If-Range": note.read_text(encoding="utf-8")}
    url = source.url
    for _ in range(_REDIRECTS):
        check(url, any_address=any_address)
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            if answer.status in (301, 302, 303, 307, 308):
                url = url.join(URL(answer.headers.get("Location", "")))
                continue
            if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and held:
                await asyncio.to_thread(part.unlink)
                raise Interrupted("it has become shorter")
            if answer.status == 429 or answer.status >= 500:
                raise Interrupted(f"the server answers {answer.status}")
            if answer.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                raise Problem(f"{shown(source.url)}: the server answers {answer.status}")
            goes_on = answer.status == HTTPStatus.PARTIAL_CONTENT and held > 0
            _note(note, answer)
            await _write(answer, part, mode="ab" if goes_on else "wb", left=limit - (held if goes_on else 0))
            note.unlink(missing_ok=True)
            return
    raise Problem(f"{shown(source.url)}: the server redirects in circles")


def _held(part: Path, note: Path) -> int:
    """Return how many bytes of the file are there to be gone on with."""
    return part.stat().st_size if part.is_file() and note.is_file() else 0


def _note(note: Path, answer: aiohttp.ClientResponse) -> None:
    """Keep the validator by which the rest may be asked for; a weak one is not good enough for that."""
    tag = answer.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        note.write_text(tag, encoding="utf-8")
    else:
        note.unlink(missing_ok=True)


async def _write(answer: aiohttp.ClientResponse, part: Path, *, mode: str, left: int) -> None:
    # What is said beforehand to be too much is not begun with; not all servers say it.
    too_large = f"the data is larger than {LARGEST >> 30} GiB"
    if (answer.content_length or 0) > left:
        raise Problem(too_large)
    with part.open(mode) as file:
        async for chunk in answer.content.iter_chunked(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise Problem(too_large)
            await asyncio.to_thread(file.write, chunk)


def _sha256(path: Path) -> str:
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()
