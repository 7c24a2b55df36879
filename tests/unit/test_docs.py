"""What the documents say is so: examples, reasons, settings and commands are checked against the code."""

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from provisioner.apis.failure import FailureClass
from provisioner.apis.nodeclaim import parse_nodeclaim
from provisioner.apis.nodeclass import DEFAULTS, NodeClassSpec, Spot, read_spec
from provisioner.apis.workspace import parse_workspace
from provisioner.gpus import presets
from provisioner.nodeclaim import class_verdict
from provisioner.nodeclaim.nodeclass import OF_CHOICE, OF_CHOICE_OF_SPOT
from provisioner.placement.market import Market
from provisioner.placement.place import place
from provisioner.placement.sizes import KnownSizes, NothingListed
from provisioner.settings import Settings, source_of
from provisioner.workspace.settings import WorkspaceSettings
from provisioner.workspace.sizing import size
from provisioner.workspace.view import Model, Sizing

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()
CONDITIONS = (ROOT / "docs" / "conditions.md").read_text()
WORKSPACES = (ROOT / "docs" / "workspaces.md").read_text()
NODE_CLASS = (ROOT / "docs" / "nodeclass.md").read_text()
DEVELOPMENT = (ROOT / "docs" / "development.md").read_text()

_REASON = re.compile(r'reason="([A-Z]\w+)"|_Refused\(\s*"([A-Z]\w+)"|return "([A-Z]\w+)", ')


def reasons_in_code() -> set[str]:
    found = {kind.reason for kind in FailureClass}
    for folder in ("nodeclaim", "placement"):
        for path in (ROOT / "provisioner" / folder).glob("*.py"):
            found |= {name for match in _REASON.findall(path.read_text()) for name in match if name}
    statuses = {"True", "False", "Unknown"}
    return found - statuses - {"GarbageCollected", "InstanceTypeNote", "DeletingAgentPool"}


def manifest(kind: str) -> str:
    """Return the YAML of that kind in the README."""
    (found,) = [text for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if f"kind: {kind}\n" in text]
    return str(found)


@pytest.mark.parametrize("kind", ["Workspace", "NodeClaim"])
def test_the_manifests_of_the_readme_are_the_examples(kind: str) -> None:
    example = (ROOT / "docs" / "examples" / f"{kind.lower()}.yaml").read_text()

    assert yaml.safe_load(manifest(kind)) == yaml.safe_load(example)


def test_the_claim_of_the_readme_can_be_served() -> None:
    raw = yaml.safe_load(manifest("NodeClaim"))
    raw["metadata"]["uid"] = "u"
    claim = parse_nodeclaim(raw)
    assert claim.spec is not None
    market = Market(sizes=KnownSizes(NothingListed()), now=claim.created)
    assert place(claim.spec, market=market).best is not None


def test_the_demo_in_the_readme_tells_the_size_that_is_chosen() -> None:
    raw = yaml.safe_load((ROOT / "docs" / "examples" / "workspace.yaml").read_text())
    raw["metadata"] |= {"uid": "u", "namespace": "default"}
    preset = presets.find(raw["inference"]["preset"]["name"])
    assert preset is not None
    sizes, model = KnownSizes(NothingListed()), Model(facts=preset.facts, preset=preset)

    found = size(parse_workspace(raw), model=model, sizes=sizes, now=datetime(2026, 1, 1, tzinfo=UTC))

    assert isinstance(found, Sizing)
    assert f"workspace phi-4-mini runs on {found.why}\n" in README


def test_the_class_of_the_document_is_the_example_and_can_be_read() -> None:
    (written,) = re.findall(r"```yaml\n(.*?)```", NODE_CLASS, re.DOTALL)
    example = yaml.safe_load((ROOT / "docs" / "examples" / "kaitonodeclass.yaml").read_text())
    assert yaml.safe_load(written) == example
    spec, error = read_spec(example["spec"])
    assert error == ""
    # Every field that there is, but where the example says what is so anyway.
    assert {name for name, value in spec if value == getattr(DEFAULTS, name)} == {"size_preference", "device_plugin"}


def fields_of_the_schema() -> set[str]:
    crd = yaml.safe_load((ROOT / "crds" / "kaito.sh_kaitonodeclasses.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    return {name for name in spec if name != "spot"} | {f"spot.{name}" for name in spec["spot"]["properties"]}


def test_every_field_of_the_class_is_explained_and_every_explained_one_exists() -> None:
    section = NODE_CLASS.partition("## Fields")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)) == fields_of_the_schema()
    read = {info.alias or name for name, info in NodeClassSpec.model_fields.items()} - {"spot"}
    read |= {f"spot.{info.alias}" for info in Spot.model_fields.values()}
    assert read == fields_of_the_schema()


def test_every_reason_of_the_class_is_explained_and_every_explained_one_exists() -> None:
    reasons = {
        value
        for name, value in vars(class_verdict).items()
        if name.isupper() and isinstance(value, str) and name[0] != "_"
    }
    assert set(re.findall(r"^\| (?:True|False), `(\w+)` \|", NODE_CLASS, re.MULTILINE)) == reasons


def test_every_field_that_is_no_drift_is_named() -> None:
    section = NODE_CLASS.partition("## Changes")[2].partition("## ")[0]
    choices = {*OF_CHOICE, *(f"spot.{name}" for name in OF_CHOICE_OF_SPOT)}
    assert set(re.findall(r"`([a-z][\w.]+)`", section)) == choices


@pytest.mark.parametrize("reason", sorted(reasons_in_code()))
def test_every_reason_is_explained(reason: str) -> None:
    assert f"`{reason}`" in CONDITIONS


def test_every_explained_reason_exists() -> None:
    code = "".join(path.read_text() for path in (ROOT / "provisioner").rglob("*.py"))
    for row in re.findall(r"^\| (?:Unknown|False), (.*?) \|", CONDITIONS, re.MULTILINE):
        for reason in re.findall(r"`(\w+)`", row):
            assert f'"{reason}"' in code, reason


def reasons_of_workspaces() -> set[str]:
    """Return the reasons that the Workspace controller sets: where one is named, and first in a pair with a message."""
    found: set[str] = set()
    for path in (ROOT / "provisioner" / "workspace").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found |= set(_reasons(node))
    return found


def _reasons(node: ast.AST) -> Iterator[str]:
    word = re.compile(r"(?:[A-Z][a-z]|workspace[A-Z])\w+")
    if isinstance(node, ast.keyword) and node.arg == "reason":
        yield from _words(node.value, word)
    elif isinstance(node, ast.Tuple) and node.elts and isinstance(node.elts[-1], ast.JoinedStr | ast.Call):
        for part in node.elts[:-1]:
            yield from _words(part, word)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "_INVALID":
        assert node.value is not None
        yield from _words(node.value, word)


def _words(node: ast.expr, word: re.Pattern[str]) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and word.fullmatch(node.value):
        yield node.value


def explained_reasons_of_workspaces() -> set[str]:
    rows = re.findall(r"^\| (?:True|False), (.*?) \|", WORKSPACES, re.MULTILINE)
    said = re.findall(r"True, `(\w+)`", WORKSPACES)
    events = WORKSPACES.partition("### Events")[2].partition("## Sizing")[0]
    return {*said, *re.findall(r"`(\w+)`", " ".join(rows)), *re.findall(r"`([A-Z]\w+)`", events)}


def test_every_reason_of_workspaces_is_explained() -> None:
    assert len(reasons_of_workspaces()) > 20
    assert reasons_of_workspaces() - set(re.findall(r"`(\w+)`", WORKSPACES)) == set()


def test_every_explained_reason_of_workspaces_exists() -> None:
    code = "".join(path.read_text() for path in (ROOT / "provisioner" / "workspace").glob("*.py"))
    assert {reason for reason in explained_reasons_of_workspaces() if f'"{reason}"' not in code} == set()


def test_presets_are_listed_as_they_are_built_in() -> None:
    listed = [line for line in WORKSPACES.splitlines() if re.match(r"\| `[\w.-]+`(?:, `[\w.-]+`)* \| [\w.-]+/", line)]

    assert listed == [
        f"| {', '.join(f'`{alias}`' for alias in preset.aliases)} | {preset.name} | {preset.weights_gib:g} "
        f"| {preset.context} | {'yes' if preset.tuning else ''} | {'yes' if preset.gated else ''} |"
        for preset in presets.presets()
    ]


def test_every_setting_of_the_workspace_controller_is_explained_and_every_explained_one_exists() -> None:
    section = WORKSPACES.partition("## Settings")[2].partition("\n## ")[0]
    read = {name for info in WorkspaceSettings.model_fields.values() for name in source_of(info).env}

    assert set(re.findall(r"`([A-Z]+_[A-Z_]+|KUBECONFIG)`", section)) - {"HF_TOKEN"} == read


def test_every_metric_is_explained_and_every_explained_one_exists() -> None:
    code = "".join(path.read_text() for path in (ROOT / "provisioner").rglob("*.py"))
    kinds = r"gpu_provisioner|karpenter|operator|workqueue|controller_runtime"
    labels = {"karpenter_sh_nodepool"}
    assert set(re.findall(rf"`((?:{kinds})_\w+)`", METRICS)) == set(re.findall(rf'"((?:{kinds})_\w+)"', code)) - labels


def test_every_make_target_that_is_mentioned_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    mentioned = set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", README + DEVELOPMENT, re.MULTILINE))
    assert mentioned
    assert mentioned <= targets


def test_every_environment_name_that_is_mentioned_is_read() -> None:
    kinds = (Settings, WorkspaceSettings)
    read = {name for kind in kinds for info in kind.model_fields.values() for name in source_of(info).env}
    names = (
        r"\b((?:AZURE|ARM|SERVING|LEASE|HF)_[A-Z_]+|DEPLOYMENT_MODE|[A-Z]+_PORT|[A-Z_]+_SECONDS|WAIT_FOR_GPUS|REPLACE_DRIFTED"
        r"|WORKSPACE_NODES|LEADER_ELECTION)\b"
    )
    # A key of Secrets, and a variable of Hugging Face's own tools that `plan` reads.
    assert set(re.findall(names, README + CONDITIONS + WORKSPACES)) - read == {"HF_TOKEN"}


def test_every_path_that_is_mentioned_exists() -> None:
    for path in re.findall(
        r"(?<![\w/-])((?:docs|fakes|crds|provisioner|\.ci)/[\w./-]*[\w/])", README + DEVELOPMENT + WORKSPACES
    ):
        assert (ROOT / path).exists(), path


def test_every_spec_of_karpenters_is_proven_by_a_test_that_exists_or_says_why_not() -> None:
    document = (ROOT / "docs" / "conformance.md").read_text()
    rows = [line.split(" | ") for line in document.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 200
    assert all(len(row) == 2 and all(cell.strip(" |") for cell in row) for row in rows)
    proofs = re.findall(r"`((?:unit|scenarios|semantics|conformance|chaos)/\w+\.py)(?:::(test_\w+))?`", document)
    assert proofs
    for path, name in proofs:
        code = (ROOT / "tests" / path).read_text()
        assert not name or f"def {name}(" in code, f"{path}::{name}"
