"""Data that is fetched: from where it may be, whole or not at all."""

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from provisioner.serving import addresses, fetch
from provisioner.serving.environment import BadEnvironment
from provisioner.serving.problem import Problem

CONTENT = b'{"text": "a"}\n' * 1000


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        yield f"http://127.0.0.1:{server.port}"


async def fetched(directory: Path, *urls: str, anywhere: bool = True) -> dict[str, bytes]:
    variables = {"DATA_URLS": json.dumps(urls), **({"FETCH_ANY_ADDRESS": "true"} if anywhere else {})}
    await fetch.run(directory, variables=variables, pause=0)
    return contents(directory)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


async def test_files_are_named_by_the_ends_of_their_paths(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/moved/a.parquet":
            return web.Response(status=302, headers={"Location": "/real?sig=x"})
        return web.Response(body=request.path.encode())

    async with serving(answer) as base:
        found = await fetched(tmp_path / "data", f"{base}/x/b%20c.jsonl?sig=s3cret", f"{base}/moved/a.parquet")

    assert found == {"b c.jsonl": b"/x/b c.jsonl", "a.parquet": b"/real"}


async def test_what_broke_off_is_gone_on_with(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append((request.headers.get("Range", ""), request.headers.get("If-Range", "")))
        if len(asked) > 1:
            begin = int(asked[-1][0].removeprefix("bytes=").rstrip("-"))
            return web.Response(status=206, body=CONTENT[begin:], headers={"ETag": '"v1"'})
        response = web.StreamResponse(headers={"ETag": '"v1"', "Content-Length": str(len(CONTENT))})
        await response.prepare(request)
        await response.write(CONTENT[:5000])
        assert request.transport is not None
        request.transport.close()
        return response

    async with serving(answer) as base:
        found = await fetched(tmp_path, f"{base}/a.json#sha256={hashlib.sha256(CONTENT).hexdigest()}")

    assert found == {"a.json": CONTENT}
    assert asked == [("", ""), ("bytes=5000-", '"v1"')]


async def test_a_file_that_changed_meanwhile_is_fetched_anew(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        # What If-Range asks for is gone, so all of it comes.
        return web.Response(body=CONTENT, headers={"ETag": '"v2"'})

    (tmp_path / ".a.json.part").write_bytes(b"half of another")
    (tmp_path / ".a.json.etag").write_text('"v1"')
    async with serving(answer) as base:
        assert await fetched(tmp_path, f"{base}/a.json") == {"a.json": CONTENT}


async def test_what_is_there_already_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"whole")

    assert await fetched(tmp_path, "http://127.0.0.1:1/a.json") == {"a.json": b"whole"}


@pytest.mark.parametrize(
    ("status", "fragment", "says"),
    [
        (404, "", "the server answers 404"),
        (500, "", "cannot be fetched: Interrupted: the server answers 500"),
        (200, "#sha256=" + "0" * 64, "SHA-256 is not the one that was said"),
        (302, "", "redirects in circles"),
    ],
)
async def test_what_cannot_be_fetched_is_one_line(tmp_path: Path, status: int, fragment: str, says: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=b"x", headers={"Location": "/again"} if status == 302 else {})

    async with serving(answer) as base:
        with pytest.raises(Problem, match=says) as raised:
            await fetched(tmp_path, f"{base}/a.json?sig=s3cret{fragment}")

    assert "s3cret" not in str(raised.value)
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("says_its_size", [True, False])
async def test_more_than_the_limit_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says_its_size: bool
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(CONTENT))} if says_its_size else {})
        await response.prepare(request)
        await response.write(CONTENT)
        return response

    monkeypatch.setattr(fetch, "LARGEST", 1000)
    async with serving(answer) as base:
        with pytest.raises(Problem, match="the data is larger than"):
            await fetched(tmp_path, f"{base}/a.json")

    assert not (tmp_path / "a.json").exists()
    assert not says_its_size or contents(tmp_path) == {}


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:PORT/a.json", "http://localhost:PORT/a.json", "http://[::1]/a.json", "http://0/a.json",
     "http://169.254.169.254/a.json", "http://2130706433/a.json"],
)  # fmt: skip
async def test_nothing_inside_of_the_cluster_is_asked(tmp_path: Path, url: str) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(body=b"secret")

    async with serving(answer) as base:
        with pytest.raises(Problem):
            await fetched(tmp_path, url.replace("PORT", str(URL(base).port)), anywhere=False)

    assert asked == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://a.example/x", "gopher://a.example"])
async def test_a_redirect_to_another_scheme_is_not_followed(tmp_path: Path, target: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": target})

    async with serving(answer) as base:
        with pytest.raises(Problem, match="no address of http or https"):
            await fetched(tmp_path, f"{base}/a.json")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("0.0.0.0", False),  # noqa: S104
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
        ("no address", False),
    ],
)
def test_which_addresses_are_of_the_internet(address: str, public: bool) -> None:
    assert addresses.is_public(address) is public


@pytest.mark.parametrize(
    ("urls", "says"),
    [
        (["https://a.example/x.exe"], "must end in the name of a file of"),
        (["https://a.example/"], "must end in the name"),
        (["https://a.example/.x.json"], "must end in the name"),
        (["https://a.example/x.json", "https://b.example/x.json"], "two of DATA_URLS end in x.json"),
        (["https://a.example/x.json#part"], "what follows # must be sha256="),
        (["http://[::1/x.json"], "no URL"),
        ([], "DATA_URLS is missing"),
    ],
)
async def test_addresses_that_cannot_be_meant_are_refused(tmp_path: Path, urls: list[str], says: str) -> None:
    with pytest.raises(Problem, match=says):
        await fetched(tmp_path, *urls)


async def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadEnvironment, match="DATA_URLS must be a JSON list"):
        await fetch.run(tmp_path, variables={"DATA_URLS": "{"})
