"""NodeClaims, Workspaces and node classes out of files; and what is no such thing, told in one line."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.commands.documents import Documents, Wish, WorkspaceWish, read_files
from provisioner.commands.exits import Exit, Trouble
from tests.unit.builders import A100, kaito_claim

# As published for KAITO v0.3.
WORKSPACE = """
apiVersion: kaito.sh/v1alpha1
kind: Workspace
metadata:
  name: workspace-phi-3-mini
resource:
  instanceType: "Standard_NC6s_v3"
  labelSelector:
    matchLabels:
      apps: phi-3
inference:
  preset:
    name: phi-3-mini-4k-instruct
"""


def read(*texts: str) -> Documents:
    return read_files(["-"], stdin=io.StringIO("\n---\n".join(texts)))


def claim_of(found: Documents) -> Wish:
    (wish,) = found.wishes
    assert isinstance(wish, Wish)
    return wish


def workspace_of(found: Documents) -> WorkspaceWish:
    (wish,) = found.wishes
    assert isinstance(wish, WorkspaceWish)
    return wish


def workspace(**changes: Any) -> str:
    raw = yaml.safe_load(WORKSPACE)
    raw["resource"] |= changes
    return yaml.safe_dump(raw)


def test_claim_is_read_as_its_client_wrote_it() -> None:
    raw = kaito_claim("ws1")
    wish = claim_of(read(yaml.safe_dump(raw)))

    assert (wish.label, wish.source, wish.is_named) == ("ws1", "standard input", True)
    assert wish.claim.spec is not None
    assert wish.claim.labels == raw["metadata"]["labels"]
    assert wish.claim.is_managed


def test_claim_out_of_a_cluster_is_planned_as_a_new_one() -> None:
    raw = kaito_claim("ws1", status={"providerID": "azure:///x", "nodeName": "n"})
    wish = claim_of(read(yaml.safe_dump(raw)))

    assert (wish.claim.provider_id, wish.claim.node_name) == ("", "")
    assert wish.claim.uid != raw["metadata"]["uid"]


def test_name_that_is_made_up_later_is_not_taken_for_one() -> None:
    raw = kaito_claim("x")
    raw["metadata"] = {"generateName": "gpu-"}
    wish = claim_of(read(yaml.safe_dump(raw)))

    assert (wish.label, wish.is_named) == ("gpu-xxxxx", False)


def test_workspace_is_read_as_its_author_wrote_it() -> None:
    wish = workspace_of(read(WORKSPACE))
    subject = wish.workspace

    assert (wish.label, wish.source, subject.key) == ("workspace-phi-3-mini", "standard input", f"default/{wish.label}")
    assert (subject.resource.instance_type, subject.resource.count) == ("Standard_NC6s_v3", None)
    assert subject.inference is not None
    assert subject.inference.preset is not None
    assert subject.inference.preset.name == "phi-3-mini-4k-instruct"


def test_workspace_out_of_a_cluster_is_planned_as_a_new_one() -> None:
    raw = yaml.safe_load(WORKSPACE)
    raw["metadata"] |= {"namespace": "ml", "uid": "u", "finalizers": 3, "annotations": {"kaito.sh/enablelb": "true"}}
    raw["status"] = {"targetNodeCount": 7, "instanceTypes": ["Standard_NC24"]}
    subject = workspace_of(read(yaml.safe_dump(raw))).workspace

    assert (subject.key, subject.target_node_count, subject.instance_types) == ("ml/workspace-phi-3-mini", 0, ())
    assert (subject.finalizers, subject.annotations) == ((), {"kaito.sh/enablelb": "true"})


def test_config_maps_are_kept_for_the_workspaces_that_name_them() -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b", "n": 3}}

    found = read(WORKSPACE, yaml.safe_dump(config))

    assert (found.configs, found.notes) == ({("default", "c"): {"a": "b"}}, ())


@pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
def test_workspaces_of_both_versions_are_read(version: str) -> None:
    assert len(read(WORKSPACE.replace("v1alpha1", version)).wishes) == 1


def test_several_documents_and_lists_are_read_in_order() -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": [kaito_claim("ws2"), kaito_claim("ws3")]}

    found = read(yaml.safe_dump(kaito_claim("ws1")), "", yaml.safe_dump(listed), WORKSPACE)

    assert [wish.label for wish in found.wishes] == ["ws1", "ws2", "ws3", "workspace-phi-3-mini"]


def test_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(yaml.safe_dump(kaito_claim(name)))
    paths = [str(tmp_path / "b"), str(tmp_path / "a"), str(tmp_path / "b")]

    wishes = read_files(paths, stdin=io.StringIO()).wishes

    assert [(wish.label, wish.source) for wish in wishes] == [("b", paths[0]), ("a", paths[1])]


def test_json_is_yaml() -> None:
    assert len(read('{"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": "a"}}').wishes) == 1


def test_node_classes_are_kept_and_others_passed_over() -> None:
    node_class = {"apiVersion": "kaito.sh/v1alpha1", "kind": "KaitoNodeClass", "metadata": {"name": "default"}}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}

    found = read(WORKSPACE, yaml.safe_dump(node_class), yaml.safe_dump(service))

    assert found.node_classes == {"default": node_class}
    assert any("v1 Service is passed over" in note for note in found.notes)


# What is read, and what the line must say.
WRONG: dict[str, tuple[str, tuple[str, ...]]] = {
    "no YAML": ("a: [b", ("standard input", "no YAML")),
    "a tab": ("a:\n\t- b", ("no YAML",)),
    "another day": ("a: 2026-99-99", ("no YAML",)),
    "too deep": ("[" * 5000, ("no YAML",)),
    "a Python object": ("a: !!python/object/apply:os.system [id]", ("no YAML",)),
    "text": ("just text", ("no object with apiVersion and kind",)),
    "nothing": ("", ("no NodeClaim (karpenter.sh/v1) and no Workspace (kaito.sh/v1alpha1 or kaito.sh/v1beta1)",)),
    "another kind": ("{apiVersion: v1, kind: Pod}", ("no NodeClaim",)),
    "an older API": ("{apiVersion: karpenter.sh/v1beta1, kind: NodeClaim}", ("no NodeClaim (karpenter.sh/v1)",)),
    "no name": ("{apiVersion: karpenter.sh/v1, kind: NodeClaim}", ("no metadata.name",)),
    "a number as name": ("{apiVersion: karpenter.sh/v1, kind: NodeClaim, metadata: {name: 12}}", ("metadata.name",)),
    "finalizers that are none": (
        "{apiVersion: karpenter.sh/v1, kind: NodeClaim, metadata: {name: a, finalizers: 3}}",
        ("a cannot be read",),
    ),
    "a list of texts": ("{kind: List, items: [a]}", ("an item of a list",)),
    "no resource": ("{apiVersion: kaito.sh/v1beta1, kind: Workspace, metadata: {name: w}}", ("has no resource",)),
    "no machines": (workspace(count=0), ("resource.count must be 1 to 1000, not 0",)),
    "too many machines": (workspace(count=10**12), ("resource.count must be",)),
    "a text as number": (workspace(count="two"), ("resource.count must be 1 to 1000, not two",)),
    "true as number": (workspace(count=True), ("resource.count must be",)),
}


@pytest.mark.parametrize(("text", "told"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_planned_is_told(text: str, told: tuple[str, ...]) -> None:
    with pytest.raises(Trouble) as raised:
        read(text)

    assert raised.value.code == Exit.BAD_INPUT
    for part in told:
        assert part in str(raised.value)


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=f"{tmp_path}/none: No such file"):
        read_files([f"{tmp_path}/none"], stdin=io.StringIO())


def test_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(Trouble, match="is not UTF-8"):
        read_files([str(tmp_path / "a")], stdin=io.StringIO())


def test_aliases_that_unfold_without_end_are_not_unfolded() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 60)]
    bomb = "\n".join(lines)

    labels = "metadata: {name: w, labels: {a: *a59}, annotations: *a59}"
    hidden = f"{bomb}\napiVersion: kaito.sh/v1beta1\nkind: Workspace\n{labels}\nresource: {{instanceType: *a59}}"

    found = read(f"{bomb}\napiVersion: *a59\nkind: *a59", WORKSPACE, workspace(count=1) + "\nstatus: {}", hidden)

    assert len(found.wishes) == 3
    with pytest.raises(Trouble, match=r"resource\.count must be 1 to 1000\.$"):
        read(
            f"{bomb}\napiVersion: kaito.sh/v1beta1\nkind: Workspace\nmetadata: {{name: w}}\n"
            f"resource: {{instanceType: {A100}, count: *a59}}"
        )
