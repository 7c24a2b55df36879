"""Workspaces in a plan: what they run on and which claims they are given, told as the controller would."""

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import yaml

from provisioner.apis import names
from provisioner.apis.node import Node, parse_node
from provisioner.apis.workspace import parse_workspace
from provisioner.commands.documents import Documents, WorkspaceWish
from provisioner.commands.exits import Exit
from provisioner.commands.plan_report import plan_document, plan_lines
from provisioner.commands.planning import Outcome, Plan, Situation, make_plan
from provisioner.commands.workspaces import Served, look_up, serve, unknown_models
from provisioner.placement.size import Sizes
from provisioner.placement.sizes import KnownSizes, NothingListed
from provisioner.workspace.nodes import render_claim
from provisioner.workspace.view import Model, Problem
from tests.hub import CONFIG, GIB, HubServer
from tests.unit.builders import A100, T4
from tests.unit.placement_builders import Catalogue, gpu

TODAY = datetime(2026, 11, 21, tzinfo=UTC)
SIZES = KnownSizes(NothingListed())
SELECTOR = {"matchLabels": {"apps": "chat"}}
MODEL = "acme/tiny"
PULL = "acme-pull"


def wish(model: str = "phi-4-mini-instruct", *, name: str = "chat", **parts: Any) -> WorkspaceWish:
    """Return a Workspace of a file: parts of `inference` beside the preset, and `resource`."""
    resource = parts.pop("resource", {"instanceType": A100})
    raw = {
        "metadata": {"name": name, "namespace": "ml", "uid": "-", "annotations": parts.pop("annotations", {})},
        "resource": {"labelSelector": SELECTOR, **resource},
        # Some models are to be had with a token alone.
        "inference": {"preset": {"name": model, "presetOptions": {"modelAccessSecret": "hf"}}, **parts},
    }
    return WorkspaceWish(label=name, source="w.yaml", workspace=parse_workspace(raw))


def served(
    subject: WorkspaceWish,
    *,
    models: Mapping[str, Model | Problem] | None = None,
    configs: Mapping[tuple[str, str], Mapping[str, str]] | None = None,
    brought: tuple[Node, ...] = (),
    region: Sizes = SIZES,
) -> Served:
    return serve(subject, models=models or {}, configs=configs or {}, brought=brought, region=region, now=TODAY)


def planned(*subjects: Served) -> Plan:
    return make_plan(subjects, situation=Situation(sizes=SIZES, location="eastus", now=TODAY))


def text_of(plan: Plan, *, show_body: bool = False) -> str:
    return "\n".join(plan_lines(plan, why="fitting", show_body=show_body))


def test_workspace_gets_the_claims_that_its_controller_writes() -> None:
    found = served(wish("llama-3.3-70b-instruct"))

    assert found.sizing is not None
    assert [claim.label for claim in found.claims] == ["chat 1/3", "chat 2/3", "chat 3/3"]
    names_given = [body["metadata"]["name"] for body in found.bodies]
    assert list(found.bodies) == [render_claim(found.wish.workspace, found.sizing, name) for name in names_given]
    assert all(claim.claim.is_managed and not claim.is_named for claim in found.claims)


def test_report_shows_model_layout_nodes_and_claims() -> None:
    text = text_of(planned(served(wish("llama-3.3-70b-instruct"))))

    assert "Workspace chat (w.yaml): would be given 3 NodeClaims" in text
    assert "model     meta-llama/Llama-3.3-70B-Instruct, 131.4 GiB of weights, sequences of up to 131072 tok" in text
    assert f"runs on   3 x {A100}: tensor parallel 1, pipeline parallel 3; " in text
    assert "OS disk   211 GiB" in text
    assert "endpoint  http://chat.ml.svc" in text
    assert "NodeClaim chat 2/3 (of Workspace ml/chat): would be created" in text
    assert text.endswith("3 of 3 would be created: 11.019 $/h.")


def test_size_is_chosen_where_none_is_named() -> None:
    found = served(wish(resource={}))

    assert found.sizing is not None
    assert found.sizing.instance_types[0] == T4
    assert len(found.sizing.instance_types) > 1
    assert found.notes == ()
    assert f"or on     {', '.join(found.sizing.instance_types[1:])}" in text_of(planned(found))


def test_cheaper_size_of_the_region_is_told() -> None:
    local = "Standard_NC1_new"
    region = Catalogue(sizes=(gpu(local, "B10", 4, 28, "0.100"), gpu(T4, "T4", 4, 28, "0.526", gpu_memory_gib=15.0)))

    unsized, named = served(wish(resource={}), region=region), served(wish(), region=region)

    assert unsized.sizing is not None
    assert unsized.sizing.instance_types[0] == T4
    assert unsized.notes[0].startswith(f"In this region 1 x {local} (0.100 $/h) is the cheapest that fits")
    assert named.notes == ()


def test_brought_nodes_are_used_in_place_of_claims() -> None:
    raw = {
        "metadata": {"name": "n1", "uid": "n", "labels": {"apps": "chat", names.INSTANCE_TYPE_LABEL: A100}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"nvidia.com/gpu": "1"}},
    }

    found = served(wish(resource={"instanceType": A100, "count": 2}), brought=(parse_node(raw),))

    assert (found.taken, len(found.claims)) == (("n1",), 1)
    assert "brought   n1" in text_of(planned(found))
    assert text_of(planned(served(wish(), brought=(parse_node(raw),)))).endswith("\nNo NodeClaim would be created.")


CONFIG_MAP = {"inference_config.yaml": "vllm: {max-model-len: 131073}"}


@pytest.mark.parametrize(
    ("subject", "reason", "said"),
    [
        (wish("falcon-7b"), "UnknownPreset", "inference.preset.name: 'falcon-7b' is no preset"),
        (wish(template={}), "InvalidWorkspace", "inference.preset, inference.template: both are there"),
        (wish("phi-4", resource={"instanceType": T4, "count": 1}), "ModelTooLarge", "GiB are missing on"),
        (wish(resource={"instanceType": "Standard_NC999"}), "UnknownInstanceType", "no VM size that is known here"),
        (wish(config="c"), "ContextTooLong", "max-model-len is 131073"),
        (wish(MODEL), "ModelNotFound", "not to be had"),
    ],
)
def test_what_is_wrong_is_told_as_the_conditions_would(subject: WorkspaceWish, reason: str, said: str) -> None:
    missing = Problem(reason="ModelNotFound", message=f"{MODEL} is not to be had.")
    found = served(subject, models={MODEL: missing}, configs={("ml", "c"): CONFIG_MAP})
    plan = planned(found)

    assert found.problem is not None
    assert (found.problem.reason, plan.claims, plan.exit_code) == (reason, (), Exit.REFUSED)
    assert said in found.problem.message
    assert "Workspace chat (w.yaml): is refused as it is written" in text_of(plan)
    assert f"{reason}: " in text_of(plan)
    assert text_of(plan).endswith("\n1 of 1 Workspaces cannot be served.")


def test_config_and_secrets_that_are_not_in_the_files_are_taken_to_be_well() -> None:
    adapters = [{"source": {"name": "a", "image": "registry.example/a:1", "imagePullSecrets": [PULL]}}]

    found = served(wish(config="c", adapters=adapters))

    assert found.problem is None
    assert found.notes == ("ConfigMap c is in none of the files: planned as if it said nothing.",)


def test_tuning_has_no_endpoint() -> None:
    raw = {
        "metadata": {"name": "tune", "namespace": "ml", "uid": "-"},
        "resource": {"labelSelector": SELECTOR, "instanceType": A100},
        "tuning": {
            "preset": {"name": "phi-4"},
            "method": "qlora",
            "input": {"urls": ["https://data.example/a.parquet"]},
            "output": {"image": "registry.example/a:1", "imagePushSecret": "push"},
        },
    }
    subject = WorkspaceWish(label="tune", source="w.yaml", workspace=parse_workspace(raw))
    text = text_of(planned(served(subject)))

    assert "Workspace tune (w.yaml): would be given 1 NodeClaim" in text
    assert "endpoint" not in text


def test_document_has_layout_and_claims() -> None:
    plan = planned(served(wish("llama-3.3-70b-instruct")), served(wish("nope", name="other")))
    document = plan_document(plan, location="eastus", why="none", show_body=True)

    first, second = document["workspaces"]
    assert (first["name"], first["namespace"], first["nodes"], first["instanceTypes"]) == ("chat", "ml", 3, [A100])
    assert first["model"] == {
        "name": "meta-llama/Llama-3.3-70B-Instruct",
        "revision": None,
        "isPreset": True,
        "weightsGiB": 131.42,
        "quantization": None,
        "maxSequence": 131072,
    }
    assert (first["layout"]["tensorParallel"], first["layout"]["pipelineParallel"]) == (1, 3)
    assert [claim["kind"] for claim in first["nodeClaims"]] == ["NodeClaim"] * 3
    assert {claim["workspace"] for claim in document["claims"]} == {"ml/chat"}
    assert (second["reason"], second["layout"], second["nodeClaims"]) == ("UnknownPreset", None, [])
    assert document["exitCode"] == 4
    assert json.loads(json.dumps(document)) == document


def test_body_of_the_claims_is_shown_when_asked() -> None:
    text = text_of(planned(served(wish())), show_body=True)
    shown = text.split("gives)\n", 1)[1].split("\n\n", 1)[0]

    assert yaml.safe_load(shown)["spec"]["resources"]["requests"]["storage"] == "87Gi"
    assert "kind: NodeClaim" not in text_of(planned(served(wish())))


def test_hostile_texts_do_not_reach_the_terminal() -> None:
    hostile = WorkspaceWish(label="w\x1b[2J", source="a\x1b", workspace=wish("\x1b[31m\u202e").workspace)

    assert all(line.isprintable() for line in plan_lines(planned(served(hostile)), why="all", show_body=True))


# Models of the Hub


@pytest.fixture
async def hub() -> AsyncIterator[HubServer]:
    async with HubServer({MODEL: 8 * GIB}) as running:
        yield running


def test_models_that_are_no_presets_are_to_be_looked_up_once() -> None:
    wishes = (wish(), wish(MODEL), wish(MODEL), wish("acme/other", template={}), wish("falcon"))

    assert unknown_models(Documents(wishes=wishes)) == (MODEL,)


async def test_model_of_the_hub_is_planned_with(hub: HubServer) -> None:
    models = await look_up([MODEL], endpoint=hub.url, token="hf_x")
    found = served(wish(MODEL, resource={}), models=models)

    assert found.model is not None
    assert (found.model.facts.weights_bytes, found.model.facts.layers) == (8 * GIB, CONFIG["num_hidden_layers"])
    assert found.sizing is not None
    assert set(hub.tokens) == {"Bearer hf_x"}
    assert "model     acme/tiny, 8.0 GiB of weights" in text_of(planned(found))


async def test_model_that_the_hub_does_not_have_is_refused(hub: HubServer) -> None:
    models = await look_up(["acme/none"], endpoint=hub.url)
    plan = planned(served(wish("acme/none"), models=models))

    assert plan.exit_code is Exit.REFUSED
    assert "ModelNotFound: acme/none is not to be had from" in text_of(plan)


async def test_hub_that_does_not_answer_is_not_waited_for(hub: HubServer) -> None:
    hub.hang()
    models = await look_up([MODEL], endpoint=hub.url, patience=0.2)
    plan = planned(served(wish(MODEL), models=models), served(wish()))

    assert plan.exit_code is Exit.NOT_NOW
    assert f"ModelLookupFailed: {MODEL} could not be looked up: {hub.url} takes too long." in text_of(plan)
    assert plan.parts[0].outcomes == (Outcome.UNAVAILABLE,)


async def test_name_that_is_none_of_the_hub_is_not_waited_for(hub: HubServer) -> None:
    models = await look_up(["../none"], endpoint=hub.url, patience=1e6)

    assert isinstance(models["../none"], Problem)


async def test_nothing_is_looked_up_where_that_is_switched_off() -> None:
    models = await look_up([MODEL], endpoint="")
    plan = planned(served(wish(MODEL), models=models))

    assert plan.exit_code is Exit.NOT_NOW
    assert "Workspace chat (w.yaml): cannot be planned" in text_of(plan)
    assert f"{MODEL} is no preset, and no models are looked up here" in text_of(plan)
    assert plan.price == Decimal(0)
