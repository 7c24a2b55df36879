"""Alerts and dashboard: what they ask Prometheus for exists, and every alert leads to what to do about it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.metric_registry import labels_by_metric
from tests.unit.promql import names_in

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "charts" / "gpu-provisioner" / "files"
# Set by Prometheus servers that hold several clusters, and by the Kubernetes API.
FOREIGN_LABELS = {"cluster"}
CODE = "".join(path.read_text() for path in (ROOT / "provisioner").rglob("*.py"))


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text())
    return found


def queries() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


ALERTS = {rule["alert"]: rule for rule in rules()}
EXPRESSIONS = {**{name: rule["expr"] for name, rule in ALERTS.items()}, **{text: text for text in queries()}}


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_metrics_and_labels_of_an_expression_exist(expression: str) -> None:
    known, named = labels_by_metric(), names_in(expression)

    assert named.metrics
    assert {name for name, _ in named.metrics} - known.keys() == set()
    labels = FOREIGN_LABELS.union(*(known[name] for name, _ in named.metrics))
    assert named.grouping - labels == set()
    for name, matchers in named.metrics:
        assert {label for label, _, _ in matchers} - known[name] - FOREIGN_LABELS == set()


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_values_that_an_expression_selects_are_set_somewhere(expression: str) -> None:
    for _, matchers in names_in(expression).metrics:
        for label, operator, value in matchers:
            if label in ("status", "cluster") or not value:
                continue
            alternatives = value.split("|") if "~" in operator else [value]
            # A Workspace's state is counted in lower case.
            code = CODE.lower() if label == "phase" else CODE
            assert [each for each in alternatives if f'"{each}"' not in code] == [], label


def test_alerts_have_a_name_of_their_own() -> None:
    assert len(ALERTS) == len(rules()) > 20


@pytest.mark.parametrize("rule", ALERTS.values(), ids=ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[mhd]", rule.get("for", "1m"))
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert len(rule["annotations"]["description"]) > 80
    assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("rule", ALERTS.values(), ids=ALERTS)
def test_labels_in_an_alerts_text_are_left_by_its_expression(rule: dict[str, Any]) -> None:
    shown = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))

    assert shown - names_in(rule["expr"]).grouping == set()


def test_settings_that_alerts_mention_exist() -> None:
    text = (FILES / "alerts.yaml").read_text()
    mentioned = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text))

    assert mentioned
    assert {name for name in mentioned if f'"{name}"' not in CODE} == set()


def test_log_lines_that_alerts_quote_are_written() -> None:
    prose = re.sub(r"\s+", " ", (FILES / "alerts.yaml").read_text())
    code = re.sub(r'"\s+"', "", CODE)
    quoted = [text for text in re.findall(r"`([^`]+)`", prose) if re.match(r"(the|no|an|kopf) ", text)]

    assert len(quoted) > 4
    assert [text for text in quoted if text not in code] == []


def test_the_dashboard_is_one_that_any_grafana_can_load() -> None:
    found = dashboard()
    variables = [variable["name"] for variable in found["templating"]["list"]]
    numbers = [panel["id"] for panel in found["panels"]]

    assert found["id"] is None
    assert found["uid"] == "gpu-provisioner"
    assert found["schemaVersion"] >= 39
    assert variables == ["datasource", "cluster"]
    assert len(numbers) == len(set(numbers)) > 20
    for panel in found["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"], panel["title"]
        assert all('cluster=~"$cluster"' in target["expr"] for target in panel["targets"]), panel["title"]


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
