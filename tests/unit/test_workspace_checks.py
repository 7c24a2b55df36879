"""What a Workspace must not say, and how it is told."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.apis.workspace import parse_workspace
from provisioner.workspace.checks import check, is_known_model
from tests.unit.workspace_builders import SELECTOR, inference, tuning, workspace

EXAMPLES = tuple(sorted((Path(__file__).parents[1] / "examples").glob("workspace-*.yaml")))
TEMPLATE: dict[str, Any] = {"spec": {"containers": [{"name": "c", "image": "i"}]}}


def adapter(name: str = "style", **more: Any) -> dict[str, Any]:
    source = {"name": name, "image": "registry.example/style:1", **more.pop("source", {})}
    return {"source": {key: value for key, value in source.items() if value is not None}, **more}


def selecting(*expressions: dict[str, Any], **labels: str) -> dict[str, Any]:
    return {"labelSelector": {"matchLabels": labels, "matchExpressions": list(expressions)}}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_published_example_is_in_order(path: Path) -> None:
    raw = yaml.safe_load(path.read_text())
    raw["metadata"] |= {"namespace": "default", "uid": "1"}
    subject = parse_workspace(raw)
    # Published with its places for names that are the reader's to fill in.
    found = check(subject)

    assert found is None or "ACR_REGISTRY_SECRET_HERE" in found.message


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spec": inference(preset={"name": "acme/tiny"})},
        {"spec": inference(template=TEMPLATE)},
        {"spec": inference(template={**TEMPLATE, "metadata": {"labels": {"a": "b"}, "creationTimestamp": None}})},
        {"spec": inference(adapters=[adapter(), adapter("b", strength="0.5"), adapter("c.d-e", strength="1.0")])},
        {"spec": inference(adapters=[adapter(source={"image": None, "volumeSource": {"emptyDir": {}}})])},
        {"spec": inference(preset={"name": "llama-3.1-8b-instruct", "presetOptions": {"modelAccessSecret": "hf"}})},
        {"spec": tuning()},
        {"spec": tuning(method="LoRA", output={"volumeSource": {"emptyDir": {}}})},
        {"spec": tuning(input={"image": "registry.example/data:1", "imagePullSecrets": ["pull"]})},
        {"resource": {"labelSelector": SELECTOR, "count": 1}, "spec": tuning()},
        {"resource": selecting({"key": "a", "operator": "In", "values": ["b"]}, apps="x")},
        {"resource": selecting({"key": "example.com/a", "operator": "Exists"})},
        {"resource": {"labelSelector": SELECTOR, "partition": {"mode": "accelerator", "count": 1}}},
        {"annotations": {"gpu-provisioner.kaito.sh/node-count": "2"}},
        # What is written as null is left out.
        {"resource": {"labelSelector": {"matchLabels": None}, "count": None, "partition": None, "instanceType": None}},
        {"spec": inference(preset={"name": "phi-4", "presetOptions": None}, adapters=None, config=None)},
    ],
)
def test_nothing_is_wrong(changes: dict[str, Any]) -> None:
    assert check(workspace(**changes)) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"spec": {}}, "inference, tuning: neither is there"),
        ({"spec": {**inference(), **tuning()}}, "inference, tuning: both are there"),
        ({"spec": {"inference": {}}}, "inference.preset, inference.template: neither is there"),
        ({"spec": {"inference": {"preset": {"name": "phi-4"}, "template": TEMPLATE}}}, "both are there"),
        ({"spec": {"inference": {"preset": {}}}}, "inference.preset.name: Field required"),
        ({"spec": {"inference": "phi-4"}}, "inference: Input should be"),
        ({"resource": {"count": "many"}}, "resource.count: "),
        ({"resource": {"partition": {"mode": "half"}}}, "resource.partition.mode: "),
        ({"resource": {"partition": {"mode": "mig", "profile": "1g.10gb"}}}, "resource.partition.mode: mig"),
        ({"resource": {"count": 0}}, "resource.count: 0 is no number from 1 to 1000"),
        ({"resource": {"count": -3}}, "resource.count: -3"),
        ({"resource": {"count": 1001}}, "resource.count: 1001"),
        ({"annotations": {"gpu-provisioner.kaito.sh/node-count": "many"}}, "node-count is 'many'"),
        ({"annotations": {"gpu-provisioner.kaito.sh/node-count": "9" * 5000}}, "node-count is '999"),
        ({"annotations": {"gpu-provisioner.kaito.sh/node-count": "0"}}, "node-count is '0'"),
        ({"name": "c" * 53}, "metadata.name: it has 53 characters"),
        # Labels that no Node can have
        ({"resource": selecting(apps="not a label")}, "matchLabels: apps=not a label is no label"),
        ({"resource": selecting(**{"a b": "c"})}, "matchLabels: a b=c is no label"),
        ({"resource": selecting(apps="x" * 64)}, "is no label"),
        ({"resource": selecting({"key": "a", "operator": "Gt", "values": ["1"]})}, "operator 'Gt' of a is none of"),
        ({"resource": selecting({"key": "a", "operator": "In"})}, "In of a needs values"),
        ({"resource": selecting({"key": "a", "operator": "Exists", "values": ["b"]})}, "Exists of a takes no values"),
        ({"resource": selecting({"key": "a", "operator": "In", "values": ["b c"]})}, "is no label"),
        # Names
        ({"spec": inference(config="..")}, "inference.config: '..' is no name of a ConfigMap"),
        ({"spec": inference(config="Upper")}, "inference.config: 'Upper'"),
        (
            {"spec": inference(preset={"name": "phi-4", "presetOptions": {"modelAccessSecret": "../x"}})},
            "inference.preset.presetOptions.modelAccessSecret: '../x' is no name of a Secret",
        ),
        ({"spec": inference(preset={"name": "llama-3.1-8b-instruct"})}, "presetOptions.modelAccessSecret is missing"),
        # Adapters
        ({"spec": inference(adapters=[adapter()] * 2)}, "inference.adapters[1].source.name: 'style' is there twice"),
        ({"spec": inference(adapters=[adapter(str(n)) for n in range(11)])}, "inference.adapters: 11 are there"),
        ({"spec": inference(template=TEMPLATE, adapters=[adapter()])}, "inference.adapters: they are for presets"),
        ({"spec": inference(adapters=[adapter("../x")])}, "inference.adapters[0].source.name: '../x' is no name"),
        ({"spec": inference(adapters=[adapter("")])}, "inference.adapters[0].source.name: ''"),
        ({"spec": inference(adapters=[adapter("a\n")])}, "inference.adapters[0].source.name: 'a\\n'"),
        ({"spec": inference(adapters=[adapter(source={"image": None})])}, "needs image or volumeSource"),
        ({"spec": inference(adapters=[adapter(source={"volumeSource": {}})])}, "needs image or volumeSource"),
        ({"spec": inference(adapters=[adapter(source={"urls": ["https://a.example/b"]})])}, "source.urls"),
        *(
            ({"spec": inference(adapters=[adapter(strength=strength)])}, "inference.adapters[0].strength: ")
            for strength in ("2", "-0.1", "much", "nan", "sNaN", "Infinity", "1e9999999", "0x1")
        ),
        # Templates
        ({"spec": inference(template={"metadata": "x"})}, "inference.template.metadata: must be a map"),
        ({"spec": inference(template={"spec": []})}, "inference.template.spec: must be a map"),
        ({"spec": inference(template={"metadata": {"labels": ["a"]}})}, "inference.template.metadata.labels: must"),
        ({"spec": inference(template={"spec": {"tolerations": {}}})}, "inference.template.spec.tolerations: must"),
        ({"spec": inference(template={"spec": {"affinity": 1}})}, "inference.template.spec.affinity: must be a map"),
        (
            {"spec": inference(template={"spec": {"affinity": {"nodeAffinity": "x"}}})},
            "inference.template.spec.affinity.nodeAffinity: must be a map",
        ),
        ({"spec": inference(template=[])}, "inference.template: "),
        # Tuning
        ({"spec": tuning(preset=None)}, "tuning.preset is missing"),
        ({"spec": tuning(method="full")}, "tuning.method: 'full' is neither"),
        ({"spec": tuning(method=None)}, "tuning.method: ''"),
        ({"spec": tuning(preset={"name": "deepseek-r1-0528"})}, "cannot be tuned here"),
        ({"spec": tuning(), "resource": {"count": 2}}, "resource.count: 2, and tuning runs on one Node"),
        ({"spec": tuning(input=None)}, "tuning.input: needs"),
        ({"spec": tuning(input={})}, "tuning.input: needs"),
        ({"spec": tuning(input={"urls": ["https://a.example/b"], "image": "x"})}, "tuning.input: needs"),
        ({"spec": tuning(output=None)}, "tuning.output: needs"),
        ({"spec": tuning(output={"image": "x", "volumeSource": {}})}, "tuning.output: needs"),
        ({"spec": tuning(output={"image": "x"})}, "tuning.output.imagePushSecret is missing"),
    ],
)
def test_what_is_wrong_is_told_with_the_field(changes: dict[str, Any], said: str) -> None:
    found = check(workspace(**changes))

    assert found is not None
    assert found.reason == "InvalidWorkspace"
    assert said in found.message
    assert len(found.message) < 600


@pytest.mark.parametrize("name", ["phi-99", "acme/..", "../tiny", "a/b/c", "acme/tiny?x", "acme/", "/tiny", "a/b\n"])
def test_model_that_nobody_knows_is_told_with_those_that_are_known(name: str) -> None:
    found = check(workspace(spec=inference(preset={"name": name})))

    assert found is not None
    assert found.reason == "UnknownPreset"
    assert "Presets: " in found.message
    assert not is_known_model(name)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://data.example/a",
        "file:///etc/passwd",
        "data.example/a",
        "https://",
        "http://localhost/a",
        "http://localhost./a",
        "http://a.localhost:8080/a",
        "http://127.0.0.1/a",
        "http://127.1/a",
        "http://2130706433/a",
        "http://0x7f.0.0.1/a",
        "http://10.0.0.1/a",
        "http://[::1]/a",
        "http://[::ffff:169.254.169.254]/a",
        "http://169.254.169.254/metadata/identity",
        "http://minio/a",
        "http://minio.default.svc/a",
        "http://minio.default.svc.cluster.local./a",
        "http://[bad/a",
    ],
)
def test_data_is_not_fetched_from_within_the_cluster(url: str) -> None:
    found = check(workspace(spec=tuning(input={"urls": ["https://data.example/a?sig=secret", url]})))

    assert found is not None
    assert re.match(r"tuning\.input\.urls\[1\]: ", found.message)
    # It may carry a signature.
    assert url not in found.message


@pytest.mark.parametrize(
    "url", ["https://data.example/a?sig=x", "http://8.8.8.8:8080/a", "https://u:p@data.example./a"]
)
def test_data_is_fetched_from_anywhere_else(url: str) -> None:
    assert check(workspace(spec=tuning(input={"urls": [url]}))) is None
