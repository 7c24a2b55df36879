"""Installing, operating and moving as it is written down: commands, settings, reasons and examples are the code's."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from provisioner import __main__ as program
from provisioner.apis.nodeclaim import parse_nodeclaim
from provisioner.nodeclaim.agentpool_spec import render
from provisioner.placement.market import Market
from provisioner.placement.place import place
from provisioner.placement.sizes import KnownSizes, NothingListed
from provisioner.settings import Settings, source_of
from provisioner.workspace.settings import WorkspaceSettings
from tests.unit.test_alerts import ALERTS
from tests.unit.test_roles import granted

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
NAMES = ("install", "operations", "migration", "ecosystem", "security", "architecture")
README = (ROOT / "README.md").read_text()
TEXTS = {name: (DOCS / f"{name}.md").read_text() for name in NAMES}
CODE = "".join(path.read_text() for path in (ROOT / "provisioner").rglob("*.py"))
# Of other programs: proxies and certificates, the token of a Secret, and the states of a container.
FOREIGN = {"HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "HF_TOKEN"}


def shell_lines(text: str) -> Iterator[str]:
    """Return the commands of the shell blocks, continued lines joined."""
    for block in re.findall(r"^( *)```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        yield from re.sub(r"\\\n\s*", "", block[1]).splitlines()


def commands_of_ours() -> list[str]:
    lines = {line for text in TEXTS.values() for line in shell_lines(text)}
    inline = {found for text in TEXTS.values() for found in re.findall(r"`(provisioner [^`]+)`", text)}
    return sorted({found for line in lines | inline for found in re.findall(r"(?:^|\| )(provisioner [^|]*)", line)})


@pytest.mark.parametrize("command", commands_of_ours())
def test_commands_of_ours_are_taken(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    if words == ["--version"]:
        return

    assert program._parser().parse_args(words).command


def test_settings_that_are_named_exist() -> None:
    read = {
        name for kind in (Settings, WorkspaceSettings) for i in kind.model_fields.values() for name in source_of(i).env
    }
    for name, text in TEXTS.items():
        shell = {match for line in shell_lines("".join(TEXTS.values())) for match in re.findall(r"\b([A-Z_]+)=", line)}
        named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text))
        assert named - read - shell - FOREIGN == set(), name


def values_of(chart: str) -> set[str]:
    """Return the values of a chart by their paths, as `--set` takes them."""

    def paths(node: object, prefix: str) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, dict) else ():
            yield f"{prefix}{key}"
            yield from paths(value, f"{prefix}{key}.")

    return set(paths(yaml.safe_load((ROOT / "charts" / chart / "values.yaml").read_text()), ""))


def releases() -> list[tuple[str, str, set[str]]]:
    """Return what `helm` is told in the documents: the release, its chart, the values that are set."""
    commands = " ".join(line for text in (README, *TEXTS.values()) for line in [*shell_lines(text), "\n"])
    found = re.findall(r"helm (?:install|upgrade) (\S+) charts/(\S+)(.*?)(?=\bhelm |\n)", commands)
    return [(release, chart, set(re.findall(r"--set ([\w.]+)=", options))) for release, chart, options in found]


def test_values_that_are_set_are_the_charts() -> None:
    chosen = [(chart, value) for _, chart, values in releases() for value in sorted(values)]

    assert len(chosen) > 15
    assert [(chart, value) for chart, value in chosen if value not in values_of(chart)] == []


def test_values_that_are_named_are_the_charts() -> None:
    known = values_of("gpu-provisioner") | values_of("workspace")
    tops = "|".join(sorted({path.partition(".")[0] for path in known if "." in path}))
    named = {
        found
        for text in TEXTS.values()
        for found in re.findall(rf"`(?:--set )?((?:{tops})\.[\w.]*\w)", text)
        if not (ROOT / found).exists()
    }

    assert len(named) > 15
    assert named - known == set()


def test_the_federated_credential_is_for_the_charts_service_account() -> None:
    (subject,) = re.findall(r'export SUBJECT="(\S+)"', TEXTS["install"])
    own = {release for release, chart, _ in releases() if chart == "gpu-provisioner"}
    default = yaml.safe_load((ROOT / "charts" / "gpu-provisioner" / "values.yaml").read_text())["serviceAccount"]

    # Without a name of its own it is called as the release, where that has the chart's name in it.
    assert default["name"] == ""
    assert {subject} == {f"system:serviceaccount:$NAMESPACE:{release}" for release in own}


def explained_reasons() -> set[str]:
    rows = re.findall(r"^\| (?:Unknown|False|True), (.*?) \|", (DOCS / "conditions.md").read_text(), re.MULTILINE)
    return {reason for row in rows for reason in re.findall(r"`(\w+)`", row)}


def test_every_reason_has_a_row_that_says_where_to_look() -> None:
    section = TEXTS["operations"].partition("## By reason")[2].partition("## Day two")[0]
    told = {
        reason for row in re.findall(r"^\| (.*?) \|", section, re.MULTILINE) for reason in re.findall(r"`(\w+)`", row)
    }

    assert len(explained_reasons()) > 40
    assert explained_reasons() - told == set()
    assert {reason for reason in told if f'"{reason}"' not in CODE} == set()


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    section = TEXTS["operations"].partition("## Alerts")[2].partition("## By reason")[0]

    assert re.findall(r"^### (\w+)$", section, re.MULTILINE) == list(ALERTS)


def test_log_lines_that_are_quoted_are_written() -> None:
    code = re.sub(r'"\s+"', "", CODE)
    quoted = re.findall(r"`((?:the|no|an|kopf) [^`]+)`", re.sub(r"\s+", " ", TEXTS["operations"]))

    assert len(quoted) > 5
    assert [text for text in quoted if text not in code] == []


def test_every_action_of_the_roles_is_explained() -> None:
    table = set(re.findall(r"^\| `([\w.]+/[\w./]+)` \|", TEXTS["install"], re.MULTILINE))

    roles = granted("role.json") | granted("role-subscription.json")
    assert {action.removeprefix("Microsoft.ContainerService/") for action in roles} == table


def yaml_blocks() -> list[str]:
    found = [block for text in TEXTS.values() for block in re.findall(r"^( *)```yaml\n(.*?)^ *```", text, re.S | re.M)]
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def test_manifests_in_the_documents_are_manifests() -> None:
    kinds = [yaml.safe_load(block)["kind"] for block in yaml_blocks()]

    assert kinds == ["NodeClaim", "Pod", "ResourceFlavor", "InferenceService"]


def test_the_plain_claim_is_the_example_and_can_be_served() -> None:
    raw = yaml.safe_load((EXAMPLES / "nodeclaim-plain.yaml").read_text())
    assert yaml.safe_load(yaml_blocks()[0]) == raw
    raw["metadata"]["uid"] = "u"
    claim = parse_nodeclaim(raw)

    assert claim.is_managed
    assert claim.spec is not None
    best = place(claim.spec, market=Market(sizes=KnownSizes(NothingListed()), now=claim.created)).best
    assert best is not None
    assert best.size.gpu_count >= 1


def test_the_claim_for_amds_gpus_is_served_with_no_driver() -> None:
    raw = yaml.safe_load((EXAMPLES / "nodeclaim-amd.yaml").read_text())
    raw["metadata"]["uid"] = "u"
    claim = parse_nodeclaim(raw)

    assert claim.spec is not None
    best = place(claim.spec, market=Market(sizes=KnownSizes(NothingListed()), now=claim.created)).best
    assert best is not None
    assert (best.size.gpu_resource, best.size.gpu_count) == ("amd.com/gpu", 8)
    assert render(claim, claim.spec, best)["properties"]["gpuProfile"] == {"driver": "None"}


def test_pods_in_the_documents_find_the_node_of_the_plain_claim() -> None:
    claim, pod, flavor, service = (yaml.safe_load(block) for block in yaml_blocks())
    (taint,) = claim["spec"]["taints"]

    for place_of in (
        (pod["spec"]["nodeSelector"], pod["spec"]["tolerations"]),
        (flavor["spec"]["nodeLabels"], flavor["spec"]["tolerations"]),
        (service["spec"]["predictor"]["nodeSelector"], service["spec"]["predictor"]["tolerations"]),
    ):
        labels, tolerations = place_of
        assert labels.items() <= claim["metadata"]["labels"].items()
        assert taint in tolerations


HEALTH = {
    "resource.customizations.health.karpenter.sh_NodeClaim": ("Launched", "Registered", "Initialized", "Ready"),
    "resource.customizations.health.kaito.sh_Workspace": ("WorkspaceSucceeded",),
}


@pytest.mark.parametrize("key", HEALTH)
def test_health_checks_for_argo_cd_go_by_conditions_and_reasons_that_exist(key: str) -> None:
    config_map = yaml.safe_load((EXAMPLES / "argocd-cm.yaml").read_text())
    assert config_map["metadata"]["name"] == "argocd-cm"
    assert config_map["data"].keys() == HEALTH.keys()
    script = config_map["data"][key]

    for condition in HEALTH[key]:
        assert re.search(rf'"{condition}"|found\.{condition}\b', script)
        assert f'"{condition}"' in CODE
    stuck = re.findall(r"\b(\w+) = true", script)
    assert len(stuck) > 5
    assert [reason for reason in stuck if f'"{reason}"' not in CODE] == []
    assert set(re.findall(r'status = "(\w+)"', script)) == {"Healthy", "Progressing", "Degraded"}
    words = re.findall(r"\b(?:if|for|end)\b", re.sub(r'"[^"]*"|--.*', "", script))
    assert len(words) == 2 * words.count("end")
    assert script.rstrip().endswith("return hs")
