"""What a container is told, and which files it finds: references of a pod, resolved as the kubelet does."""

from pathlib import Path
from typing import Any

import pytest

from fakes.containers import ConfigError, Image, volumes
from fakes.containers.spec import References, at_root, command, environment, expand
from fakes.nodes.api import Object
from tests.fakes.containers_support import Api, container, pod

POD: Object = {
    **pod(metadata={"labels": {"apps.kubernetes.io/pod-index": "2"}, "annotations": {"note": "n"}}),
    "status": {"podIP": "127.96.0.9", "hostIP": "10.0.0.1"},
}


@pytest.fixture
def api() -> Api:
    api = Api()
    api.config_map("settings", LEVEL="debug", COLOUR="blue")
    api.secret("keys", HF_TOKEN="hf_x", COLOUR="red")
    return api


@pytest.fixture
def references(api: Api) -> References:
    return References("default", api.read)


def key(kind: str, name: str, what: str, **more: Any) -> Object:
    return {"name": "X", "valueFrom": {kind: {"name": name, "key": what, **more}}}


def field(path: str) -> Object:
    return {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"env": [{"name": "X", "value": "plain"}]}, {"X": "plain"}),
        ({"env": [{"name": "X"}]}, {"X": ""}),
        ({"env": [{"name": "A", "value": "1"}, {"name": "X", "value": "$(A)$(B)$$(A)"}]}, {"A": "1", "X": "1$(B)$(A)"}),
        ({"env": [key("secretKeyRef", "keys", "HF_TOKEN")]}, {"X": "hf_x"}),
        ({"env": [key("configMapKeyRef", "settings", "LEVEL")]}, {"X": "debug"}),
        ({"env": [key("secretKeyRef", "none", "HF_TOKEN", optional=True)]}, {}),
        ({"env": [key("configMapKeyRef", "settings", "NONE", optional=True)]}, {}),
        ({"envFrom": [{"configMapRef": {"name": "settings"}}]}, {"LEVEL": "debug", "COLOUR": "blue"}),
        (
            {"envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "S_", "secretRef": {"name": "keys"}}]},
            {"LEVEL": "debug", "COLOUR": "blue", "S_HF_TOKEN": "hf_x", "S_COLOUR": "red"},
        ),
        (
            {"envFrom": [{"secretRef": {"name": "keys"}}], "env": [{"name": "COLOUR", "value": "not $(COLOUR)"}]},
            {"HF_TOKEN": "hf_x", "COLOUR": "not red"},
        ),
        ({"envFrom": [{"secretRef": {"name": "none", "optional": True}}]}, {}),
        ({"env": [field("metadata.name")]}, {"X": "pod-0"}),
        ({"env": [field("status.podIP")]}, {"X": "127.96.0.9"}),
        ({"env": [field("metadata.labels['apps.kubernetes.io/pod-index']")]}, {"X": "2"}),
        ({"env": [field("metadata.annotations['none']")]}, {"X": ""}),
    ],
)
async def test_variables_are_what_the_pod_says(
    references: References, fields: Object, expected: dict[str, str]
) -> None:
    assert await environment(container("", **fields), pod=POD, references=references) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"env": [key("secretKeyRef", "none", "HF_TOKEN")]}, 'secret "none" not found'),
        (
            {"env": [key("configMapKeyRef", "settings", "NONE")]},
            "couldn't find key NONE in configmaps default/settings",
        ),
        ({"envFrom": [{"configMapRef": {"name": "none"}}]}, 'configmap "none" not found'),
        ({"env": [field("spec.affinity")]}, "field spec.affinity is not known to this kubelet"),
        ({"env": [{"name": "X", "valueFrom": {"resourceFieldRef": {}}}]}, "X: resourceFieldRef is not known"),
    ],
)
async def test_reference_that_leads_nowhere_is_told_in_the_kubelets_words(
    references: References, fields: Object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        await environment(container("", **fields), pod=POD, references=references)


async def test_each_object_is_read_once_until_it_is_forgotten(api: Api, references: References) -> None:
    assert await references.data("configmaps", "settings") == {"LEVEL": b"debug", "COLOUR": b"blue"}
    api.config_map("settings", LEVEL="info")
    assert (await references.data("configmaps", "settings"))["LEVEL"] == b"debug"
    assert len(api.reads) == 1

    references.forget()

    assert await references.data("configmaps", "settings") == {"LEVEL": b"info"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["serving", "serve"]),
        ({"args": ["pull", "$(WHAT)"]}, ["serving", "pull", "it"]),
        ({"command": ["sh", "-c"]}, ["sh", "-c"]),
        ({"command": ["$(WHAT)"], "args": ["$$(WHAT)"]}, ["it", "$(WHAT)"]),
    ],
)
def test_command_is_the_pods_where_it_names_one_and_else_the_images(fields: Object, expected: list[str]) -> None:
    image = Image(entrypoint=("serving",), command=("serve",))

    assert command({"name": "main", **fields}, image, {"WHAT": "it"}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/models", "/root/models"),
        ("/models/hub", "/root/models/hub"),
        ("/modelsx", "/modelsx"),
        ("models", "models"),
        ("/etc/passwd", "/etc/passwd"),
    ],
)
def test_path_is_written_over_where_it_is_in_a_mount(text: str, expected: str) -> None:
    assert at_root(text, root=Path("/root"), mounts=("/models",)) == expected


def test_unknown_reference_in_a_text_stays_as_it_is() -> None:
    assert expand("$(A) $(A.b) $ $(", {"A": "1"}) == "1 $(A.b) $ $("


NAMESPACE: Object = {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}


class TestVolumes:
    @staticmethod
    async def fill(folder: Path, references: References, **volume: Any) -> dict[str, str]:
        raw = pod(container(""), volumes=[{"name": "v", **volume}])
        await volumes.fill(raw, folder, references=references)
        directory = folder / "v"
        files = (path for path in directory.rglob("*") if path.is_file())
        return {str(path.relative_to(directory)): path.read_text() for path in files}

    @pytest.mark.parametrize(
        ("volume", "expected"),
        [
            ({"emptyDir": {}}, {}),
            ({"configMap": {"name": "settings"}}, {"LEVEL": "debug", "COLOUR": "blue"}),
            ({"configMap": {"name": "settings", "items": [{"key": "LEVEL", "path": "a/b"}]}}, {"a/b": "debug"}),
            ({"configMap": {"name": "none", "optional": True}}, {}),
            ({"secret": {"secretName": "keys", "items": [{"key": "HF_TOKEN", "path": "t"}]}}, {"t": "hf_x"}),
            (
                {"projected": {"sources": [{"secret": {"name": "keys"}}, {"configMap": {"name": "settings"}}]}},
                {"HF_TOKEN": "hf_x", "LEVEL": "debug", "COLOUR": "blue"},
            ),
            ({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, NAMESPACE]}}, {"ns": "default"}),
        ],
    )
    async def test_has_the_files_that_it_names(
        self, tmp_path: Path, references: References, volume: Object, expected: dict[str, str]
    ) -> None:
        assert await self.fill(tmp_path, references, **volume) == expected

    @pytest.mark.parametrize(
        ("volume", "message"),
        [
            ({"secret": {"secretName": "none"}}, 'secret "none" not found'),
            (
                {"configMap": {"name": "settings", "items": [{"key": "NONE", "path": "a"}]}},
                "non-existent configmap key",
            ),
            ({"configMap": {"name": "settings", "items": [{"key": "LEVEL", "path": "../a"}]}}, "outside"),
            ({"hostPath": {"path": "/"}}, "of a kind that is not known"),
            ({"projected": {"sources": [{"clusterTrustBundle": {}}]}}, "of a kind that is not known"),
        ],
    )
    async def test_that_cannot_be_made_is_told_of(
        self, tmp_path: Path, references: References, volume: Object, message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            await self.fill(tmp_path, references, **volume)

    def test_are_found_where_the_container_mounts_them_and_nowhere_else(self, tmp_path: Path) -> None:
        source, root = tmp_path / "volumes", tmp_path / "root"
        (source / "cache").mkdir(parents=True)
        (root / "of-the-last-run").mkdir(parents=True)
        mounts = [
            {"name": "cache", "mountPath": "/results", "subPath": "tuned"},
            {"name": "cache", "mountPath": "/dev/shm"},  # noqa: S108 -- in a folder of the test
        ]

        found = volumes.mount(container("", volumeMounts=mounts), root, volumes=source)

        (root / "results" / "adapter").write_text("x")
        assert set(found) == {"/results", "/dev/shm"}  # noqa: S108
        assert (source / "cache" / "tuned" / "adapter").read_text() == "x"
        assert (root / "dev" / "shm" / "tuned" / "adapter").read_text() == "x"
        assert sorted(path.name for path in root.iterdir()) == ["dev", "results"]
