"""Images that carry files: pulled from and pushed to a registry on loopback that checks digests."""

import base64
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from provisioner.serving import credentials, pull, push, reference
from provisioner.serving import registry as client
from provisioner.serving.archive import Room, unpack
from provisioner.serving.problem import Problem
from tests.unit.registry_double import PASSWORD, USER, Registry, serve


def tar(files: Sequence[tuple[str, bytes | tarfile.TarInfo]], *, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files:
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tuple[str, tarfile.TarInfo]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return name, member


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def secret(path: Path, host: str, user: str, password: str) -> None:
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {f"https://{host}": {"auth": auth}}}))


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAUSE", 0.0)


async def test_the_files_under_data_of_an_image_are_pulled_by_anybody(tmp_path: Path) -> None:
    async with serve(Registry(redirects=True)) as held:
        first = tar([("data/adapter_config.json", b"old"), ("data/gone", b"x"), ("etc/passwd", b"root")])
        second = tar(
            [("./data/adapter_config.json", b"{}"), ("data/sub/w.bin", b"w"), ("data/.wh.gone", b"")], mode="w:gz"
        )
        held.add_image("1", held.add_blob(first), held.add_blob(second))

        await pull.run(f"{held.host}/team/adapter:1", tmp_path / "to", secrets=tmp_path)

    assert contents(tmp_path / "to") == {"adapter_config.json": b"{}", "sub/w.bin": b"w"}


async def test_an_artifact_is_pulled_by_the_names_of_its_files(tmp_path: Path) -> None:
    def titled(descriptor: dict[str, Any], title: str, **more: str) -> dict[str, Any]:
        return {**descriptor, "annotations": {pull.TITLE: title, **more}}

    async with serve(Registry()) as held:
        packed = held.add_blob(tar([("d/x.json", b"x")], mode="w:gz"))
        held.add_image(
            "latest",
            titled(held.add_blob(b"a"), "adapter_config.json"),
            titled(held.add_blob(b"b"), "data/train.jsonl"),
            titled(packed, "d", **{"io.deis.oras.content.unpack": "true"}),
        )

        await pull.run(f"{held.host}/artifact", tmp_path / "to", secrets=tmp_path)

    assert contents(tmp_path / "to") == {"adapter_config.json": b"a", "d/x.json": b"x", "train.jsonl": b"b"}


async def test_of_several_platforms_the_one_of_the_nodes_is_pulled(tmp_path: Path) -> None:
    async with serve(Registry()) as held:
        listed = []
        for architecture in ("arm64", "amd64"):
            image = held.add_image(architecture, held.add_blob(tar([("data/a", architecture.encode())])))
            listed.append({**image, "platform": {"os": "linux", "architecture": architecture}})
        held.add_manifest("multi", {"schemaVersion": 2, "manifests": listed})

        await pull.run(f"{held.host}/a:multi", tmp_path / "to", secrets=tmp_path)

    assert contents(tmp_path / "to") == {"a": b"amd64"}


@pytest.mark.parametrize("basic", [False, True])
async def test_secrets_are_tried_in_turn(tmp_path: Path, basic: bool) -> None:
    async with serve(Registry(is_private=True, basic=basic)) as held:
        held.add_image("1", held.add_blob(tar([("data/a", b"a")])))
        (tmp_path / "0-broken.json").write_text("{")
        secret(tmp_path / "1-elsewhere.json", "elsewhere.example", USER, PASSWORD)
        secret(tmp_path / "2-wrong.json", held.host, USER, "wrong")
        secret(tmp_path / "3-right.json", held.host, USER, PASSWORD)

        await pull.run(f"{held.host}/a:1", tmp_path / "to", secrets=tmp_path)

    assert contents(tmp_path / "to") == {"a": b"a"}


async def test_without_a_secret_that_helps_it_says_so_and_names_none(tmp_path: Path) -> None:
    async with serve(Registry(is_private=True)) as held:
        held.add_image("1", held.add_blob(b""))
        secret(tmp_path / "wrong.json", held.host, USER, "hunter2")

        with pytest.raises(Problem, match=r"refuses it \(tried 1 secrets, and none\)") as raised:
            await pull.run(f"{held.host}/a:1", tmp_path / "to", secrets=tmp_path)

    assert "hunter2" not in str(raised.value)


async def test_the_credential_does_not_go_where_a_registry_keeps_its_blobs(tmp_path: Path) -> None:
    async with serve(Registry(is_private=True, redirects=True)) as held:
        held.add_image("1", held.add_blob(tar([("data/a", b"a")])))
        secret(tmp_path / "right.json", held.host, USER, PASSWORD)

        await pull.run(f"{held.host}/a:1", tmp_path / "to", secrets=tmp_path)

    assert held.blob_headers
    assert not any("Authorization" in headers for headers in held.blob_headers)


async def test_what_fails_on_the_way_is_tried_again(tmp_path: Path) -> None:
    async with serve(Registry(fails=2)) as held:
        held.add_image("1", held.add_blob(tar([("data/a", b"a")])))

        await pull.run(f"{held.host}/a:1", tmp_path / "to", secrets=tmp_path)

    assert contents(tmp_path / "to") == {"a": b"a"}


def other_layer(held: Registry) -> None:
    layer = held.add_blob(tar([("data/a", b"a")]))
    held.add_image("1", layer)
    held.blobs[layer["digest"]] = tar([("data/a", b"b")])


def larger_layer(held: Registry) -> None:
    held.add_image("1", {**held.add_blob(tar([("data/a", b"a")])), "size": 10})


def huge_layer(held: Registry) -> None:
    held.add_image("1", {**held.add_blob(b""), "size": 1 << 50})


def weak_digest(held: Registry) -> None:
    held.add_image("1", {"digest": "md5:../../x", "size": 1})


def no_layers(held: Registry) -> None:
    held.add_manifest("1", {"schemaVersion": 2})


def nothing_under_data(held: Registry) -> None:
    held.add_image("1", held.add_blob(tar([("etc/a", b"a")])))


def no_archive(held: Registry) -> None:
    held.add_image("1", held.add_blob(b"x" * 2000))


def title_elsewhere(held: Registry) -> None:
    held.add_image("1", {**held.add_blob(b"a"), "annotations": {pull.TITLE: "../../etc/cron"}})


def other_manifest(held: Registry) -> None:
    image = held.add_image("2", held.add_blob(b""))
    held.add_manifest("1", {"manifests": [image]})
    held.manifests[image["digest"]] = b"{}"


def empty_list(held: Registry) -> None:
    held.add_manifest("1", {"manifests": []})


def no_json(held: Registry) -> None:
    held.manifests["1"] = b"["


def absent(held: Registry) -> None:
    held.manifests.clear()


def realm_without_tls(held: Registry) -> None:
    held.realm = "ftp://elsewhere.example/token"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (other_layer, "a layer is not the one of digest"),
        (larger_layer, "a layer is larger than the 10 bytes"),
        (huge_layer, "more than may be pulled"),
        (weak_digest, "no digest of SHA-256"),
        (no_layers, "no layers"),
        (nothing_under_data, "no files under /data"),
        (no_archive, "no tar file"),
        (title_elsewhere, "would lie elsewhere"),
        (other_manifest, "manifest is not the one of digest"),
        (empty_list, "empty list"),
        (no_json, "cannot be read"),
        (absent, "the registry has no manifest 1; check the image's name and tag"),
        (realm_without_tls, "elsewhere without TLS"),
    ],
)
async def test_a_registry_that_is_wrong_is_one_line(
    tmp_path: Path, spoil: Callable[[Registry], None], says: str
) -> None:
    async with serve(Registry()) as held:
        spoil(held)
        with pytest.raises(Problem, match=says):
            await pull.run(f"{held.host}/a:1", tmp_path / "to", secrets=tmp_path)

    # Neither halves nor scratch are left behind.
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (special("data/l", tarfile.SYMTYPE, "/etc/passwd"), "no plain file"),
        (special("data/l", tarfile.LNKTYPE, "etc/passwd"), "no plain file"),
        (special("data/l", tarfile.CHRTYPE), "no plain file"),
        (("data/../../etc/cron", b"x"), "would lie elsewhere"),
        (("data/x/../../y", b"x"), "would lie elsewhere"),
    ],
)
def test_an_archive_writes_nothing_but_plain_files_below_its_place(
    tmp_path: Path, entry: tuple[str, bytes | tarfile.TarInfo], says: str
) -> None:
    (tmp_path / "layer").write_bytes(tar([entry]))

    with pytest.raises(Problem, match=says):
        unpack(tmp_path / "layer", tmp_path / "to", under="data", room=Room(100))


def test_what_becomes_too_large_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(tar([("data/a", b"0" * 100_000)], mode="w:gz"))

    with pytest.raises(Problem, match="more in it than may be unpacked"):
        unpack(tmp_path / "layer", tmp_path / "to", under="data", room=Room(50_000))


async def test_what_is_pushed_can_be_pulled(tmp_path: Path) -> None:
    files = [tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"]
    files[0].write_text('{"r": 8}')
    files[1].write_bytes(b"w" * 3_000_000)
    async with serve(Registry(is_private=True)) as held:
        secret(tmp_path / "push.json", held.host, USER, PASSWORD)
        image = f"{held.host}/team/tuned:v1"
        digest = await push.run(image, files, model="org/m", secrets=tmp_path, work=tmp_path)
        manifest = json.loads(held.manifests["v1"])
        sent = [call for call in held.calls if call.startswith("PUT")]

        # The same again, as by a program that died after its work: nothing is sent twice.
        held.calls.clear()
        assert await push.run(image, files, model="org/m", secrets=tmp_path, work=tmp_path) == digest
        assert [call for call in held.calls if call.startswith("PUT")] == ["PUT /v2/team/tuned/manifests/v1"]

        await pull.run(f"{image}@{digest}", tmp_path / "to", secrets=tmp_path)

    assert len(sent) == 3
    assert manifest["annotations"] == {push.MODEL_NAME: "org/m"}
    config = json.loads(held.blobs[manifest["config"]["digest"]])
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    assert contents(tmp_path / "to") == {file.name: file.read_bytes() for file in files}


async def test_a_token_that_expires_meanwhile_is_got_anew(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    async with serve(Registry(is_private=True, expires=True)) as held:
        secret(tmp_path / "push.json", held.host, USER, PASSWORD)

        await push.run(f"{held.host}/a:1", [tmp_path / "a"], model="m", secrets=tmp_path, work=tmp_path)

        assert held.calls.count("GET /token") == 2
        assert "1" in held.manifests


async def test_pushing_without_the_right_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    async with serve(Registry(is_private=True)) as held:
        with pytest.raises(Problem, match="refuses it"):
            await push.run(f"{held.host}/a:1", [tmp_path / "a"], model="m", secrets=tmp_path, work=tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("team/x:1", "docker.io/team/x:1"),
        ("reg.example/a/b/c", "reg.example/a/b/c:latest"),
        ("reg.example:5000/a:v1.2", "reg.example:5000/a:v1.2"),
        ("localhost/a", "localhost/a:latest"),
        (f"reg.example/a:v1@sha256:{'0' * 64}", f"reg.example/a@sha256:{'0' * 64}"),
    ],
)
def test_names_of_images_are_read_as_docker_reads_them(text: str, expected: str) -> None:
    assert str(reference.parse(text)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "A/b", "reg.example/", "reg.example/a:", "reg.example/a b", "a@sha256:1", "reg.example/../a", "http://a.b/c",
     "reg.example/a?x", "user@reg.example/a", "reg.example/a:1#x"],
)  # fmt: skip
def test_what_is_no_name_of_an_image_is_refused(text: str) -> None:
    with pytest.raises(Problem, match="no name of an image"):
        reference.parse(text)


@pytest.mark.parametrize(
    ("image", "url"),
    [
        ("reg.example/a", "https://reg.example/v2/a"),
        ("busybox", "https://registry-1.docker.io/v2/library/busybox"),
        ("localhost:5000/a", "http://localhost:5000/v2/a"),
        ("127.0.0.1:5000/a", "http://127.0.0.1:5000/v2/a"),
        ("10.0.0.1:5000/a", "https://10.0.0.1:5000/v2/a"),
        ("localhost.example/a", "https://localhost.example/v2/a"),
    ],
)
def test_without_tls_nothing_but_loopback_is_spoken_to(image: str, url: str) -> None:
    assert reference.parse(image).url == url


@pytest.mark.parametrize(
    "document",
    [
        {"auths": {"reg.example": {"username": "u", "password": "p"}}},
        {"auths": {"https://reg.example/v2/": {"auth": base64.b64encode(b"u:p").decode()}}},
        {"reg.example": {"username": "u", "password": "p"}},
    ],
)
def test_docker_configurations_are_read_in_all_their_forms(tmp_path: Path, document: Any) -> None:
    (tmp_path / "s.json").write_text(json.dumps(document))

    found = credentials.find(tmp_path, "reg.example")

    assert [(one.user, one.password) for one in found] == [("u", "p"), ("", "")]
    assert "password" not in repr(found[0])


@pytest.mark.parametrize("text", ["", "[]", '{"auths": []}', '{"auths": {"reg.example": {"auth": "%"}}}', "[" * 9999])
def test_a_broken_docker_configuration_is_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)

    assert credentials.find(tmp_path, "reg.example") == (credentials.ANONYMOUS,)
