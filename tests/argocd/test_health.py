"""What Argo CD shows of claims and Workspaces by the health checks in docs/examples/argocd-cm.yaml."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.real

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCRIPTS: dict[str, str] = yaml.safe_load((DOCS / "examples" / "argocd-cm.yaml").read_text())["data"]
CLAIM = SCRIPTS["resource.customizations.health.karpenter.sh_NodeClaim"]
WORKSPACE = SCRIPTS["resource.customizations.health.kaito.sh_Workspace"]

Condition = tuple[str, str, str]
Health = Callable[[str, dict[str, Any]], tuple[str, str]]


def literal(value: Any) -> str:
    """Return a value of JSON as Lua writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{json.dumps(key)}] = {literal(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(literal(each) for each in value) + "}"
    return json.dumps(value)


@pytest.fixture
def health(interpreter: Path, tmp_path: Path) -> Health:
    """Return what runs a check on an object: its status and message."""

    def run(script: str, obj: dict[str, Any]) -> tuple[str, str]:
        path = tmp_path / "check.lua"
        # Globals that Argo CD does not open are not there here either.
        path.write_text(
            f"local obj = {literal(obj)}\nlocal print = print\nio, os, string, math, debug = nil\n"
            f"local function check()\n{script}\nend\nlocal hs = check()\nprint(hs.status)\nprint(hs.message)\n"
        )
        ran = subprocess.run([interpreter, path], check=False, capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stderr) == (0, "")
        status, message = ran.stdout.splitlines()
        return status, message

    return run


def conditions(found: tuple[Condition, ...], *, generation: int | None = None) -> list[dict[str, Any]]:
    observed = {} if generation is None else {"observedGeneration": generation}
    return [
        {"type": kind, "status": status, "reason": reason, "message": f"about {reason}", **observed}
        for kind, status, reason in found
    ]


UP_TO = {
    "Launched": (),
    "Registered": (("Launched", "True", "Launched"),),
    "Initialized": (("Launched", "True", "Launched"), ("Registered", "True", "Registered")),
}


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (("Launched", "Unknown", "CreatingAgentPool"), "Progressing"),
        (("Launched", "Unknown", "QuotaExceeded"), "Progressing"),
        (("Launched", "False", "QuotaExceeded"), "Degraded"),
        (("Launched", "Unknown", "AuthorizationFailed"), "Degraded"),
        (("Registered", "Unknown", "NodeNotFound"), "Progressing"),
        (("Registered", "False", "MultipleNodesFound"), "Degraded"),
        (("Initialized", "Unknown", "ResourceNotRegistered"), "Progressing"),
        (("Initialized", "Unknown", "GPUsMissing"), "Degraded"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_a_claim_says_what_it_waits_for(health: Health, condition: Condition, status: str) -> None:
    found = (*UP_TO[condition[0]], condition, ("Ready", "Unknown", "Waiting"))

    shown = health(CLAIM, {"metadata": {"name": "a"}, "status": {"conditions": conditions(found)}})

    assert shown == (status, f"{condition[2]}: about {condition[2]}")


@pytest.mark.parametrize("script", [CLAIM, WORKSPACE], ids=["claim", "workspace"])
@pytest.mark.parametrize("status", [None, {}, {"conditions": []}])
def test_what_nobody_has_looked_at_is_waited_for(health: Health, script: str, status: dict[str, Any] | None) -> None:
    obj = {"metadata": {"name": "a", "generation": 1}} | ({} if status is None else {"status": status})

    assert health(script, obj) == ("Progressing", "No controller has looked at it yet.")


@pytest.mark.parametrize("script", [CLAIM, WORKSPACE], ids=["claim", "workspace"])
def test_what_is_deleted_is_waited_for_and_its_cost_told(health: Health, script: str) -> None:
    found = conditions((("Launched", "False", "QuotaExceeded"), ("WorkspaceSucceeded", "False", "workspaceFailed")))
    obj = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"conditions": found}}

    status, message = health(script, obj)

    assert status == "Progressing"
    assert "cost" in message


def test_a_ready_claim_is_healthy_whatever_else_is_told_of_it(health: Health) -> None:
    found = (("Ready", "True", "Ready"), ("Drifted", "True", "ImageDrift"), ("Launched", "True", "Launched"))

    assert health(CLAIM, {"metadata": {}, "status": {"conditions": conditions(found)}})[0] == "Healthy"


@pytest.mark.parametrize(
    ("state", "condition", "status"),
    [
        ("Ready", ("True", "workspaceSucceeded"), "Healthy"),
        ("Succeeded", ("True", "workspaceSucceeded"), "Healthy"),
        ("Pending", ("False", "workspacePending"), "Progressing"),
        ("Pending", ("False", "NodeNotReady"), "Progressing"),
        ("Pending", ("False", "InsufficientCapacity"), "Degraded"),
        ("Running", ("False", "workspacePending"), "Progressing"),
        ("NotReady", ("False", "NodeNotReady"), "Degraded"),
        ("Failed", ("False", "workspaceFailed"), "Degraded"),
    ],
)
def test_a_workspace_says_what_it_waits_for(
    health: Health, state: str, condition: tuple[str, str], status: str
) -> None:
    found = conditions((("WorkspaceSucceeded", *condition),), generation=2)

    shown = health(WORKSPACE, {"metadata": {"generation": 2}, "status": {"state": state, "conditions": found}})

    assert shown == (status, f"{condition[1]}: about {condition[1]}")


def test_what_was_told_of_an_earlier_spec_does_not_count(health: Health) -> None:
    found = conditions((("WorkspaceSucceeded", "True", "workspaceSucceeded"),), generation=1)

    shown = health(WORKSPACE, {"metadata": {"generation": 2}, "status": {"state": "Ready", "conditions": found}})

    assert shown[0] == "Progressing"


def wrong_workspaces() -> list[str]:
    """Return the reasons for which a Workspace cannot be served as it stands, but for those that pass by themselves."""
    section = (DOCS / "workspaces.md").read_text().partition("### ResourceReady")[2].partition("###")[0]
    reasons = re.findall(r"^\| False, `(\w+)`", section, re.MULTILINE)
    return [reason for reason in reasons if reason not in ("ModelPending", "ModelLookupFailed")]


@pytest.mark.parametrize("reason", wrong_workspaces())
def test_a_workspace_that_cannot_be_served_as_it_stands_is_degraded(health: Health, reason: str) -> None:
    found = conditions((("WorkspaceSucceeded", "False", reason),), generation=1)

    shown = health(WORKSPACE, {"metadata": {"generation": 1}, "status": {"state": "Pending", "conditions": found}})

    assert shown[0] == "Degraded"
