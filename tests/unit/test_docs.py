"""What the documents say is so: examples, reasons, settings and commands are checked against the code."""

import re
from pathlib import Path

import pytest
import yaml

from provisioner.apis.failure import FailureClass
from provisioner.apis.nodeclaim import parse_nodeclaim
from provisioner.placement.market import Market
from provisioner.placement.place import place
from provisioner.placement.sizes import KnownSizes, NothingListed

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()
CONDITIONS = (ROOT / "docs" / "conditions.md").read_text()
DEVELOPMENT = (ROOT / "docs" / "development.md").read_text()

_REASON = re.compile(r'reason="([A-Z]\w+)"|_Refused\(\s*"([A-Z]\w+)"|return "([A-Z]\w+)", ')


def reasons_in_code() -> set[str]:
    found = {kind.reason for kind in FailureClass}
    for folder in ("nodeclaim", "placement"):
        for path in (ROOT / "provisioner" / folder).glob("*.py"):
            found |= {name for match in _REASON.findall(path.read_text()) for name in match if name}
    statuses = {"True", "False", "Unknown"}
    return found - statuses - {"GarbageCollected", "InstanceTypeNote", "DeletingAgentPool"}


def test_the_claim_of_the_readme_is_the_claim_of_the_demo() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert yaml.safe_load(example) == yaml.safe_load((ROOT / "fakes" / "demo" / "nodeclaim.yaml").read_text())


def test_the_claim_of_the_readme_can_be_served() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    raw = yaml.safe_load(example)
    raw["metadata"]["uid"] = "u"
    claim = parse_nodeclaim(raw)
    assert claim.spec is not None
    market = Market(sizes=KnownSizes(NothingListed()), now=claim.created)
    assert place(claim.spec, market=market).best is not None


@pytest.mark.parametrize("reason", sorted(reasons_in_code()))
def test_every_reason_is_explained(reason: str) -> None:
    assert f"`{reason}`" in CONDITIONS


def test_every_explained_reason_exists() -> None:
    code = "".join(path.read_text() for path in (ROOT / "provisioner").rglob("*.py"))
    for row in re.findall(r"^\| (?:Unknown|False), (.*?) \|", CONDITIONS, re.MULTILINE):
        for reason in re.findall(r"`(\w+)`", row):
            assert f'"{reason}"' in code, reason


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
    settings = (ROOT / "provisioner" / "settings.py").read_text()
    names = r"\b((?:AZURE|ARM)_[A-Z_]+|DEPLOYMENT_MODE|[A-Z]+_PORT|[A-Z_]+_SECONDS|WAIT_FOR_GPUS|REPLACE_DRIFTED)\b"
    for name in re.findall(names, README + CONDITIONS):
        assert f'"{name}"' in settings, name


def test_every_path_that_is_mentioned_exists() -> None:
    for path in re.findall(r"\b((?:docs|fakes|crds|provisioner|\.ci)/[\w./-]*[\w/])", README + DEVELOPMENT):
        assert (ROOT / path).exists(), path
