"""What Workspaces run on."""

from datetime import UTC, datetime
from typing import Any

import pytest

from provisioner.apis.workspace import Workspace, parse_workspace
from provisioner.gpus import presets
from provisioner.placement.sizes import KnownSizes, NothingListed
from provisioner.workspace.sizing import size
from provisioner.workspace.view import Model, Problem, Sizing

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SIZES = KnownSizes(NothingListed())
A100 = "Standard_NC24ads_A100_v4"


def workspace(model: str = "phi-4", *, annotations: dict[str, str] | None = None, **resource: Any) -> Workspace:
    return parse_workspace(
        {
            "metadata": {"namespace": "ml", "name": "chat", "uid": "1", "annotations": annotations or {}},
            "resource": resource,
            "inference": {"preset": {"name": model}},
        }
    )


def sized(subject: Workspace, model: str = "phi-4", *, context: int = 0, brought: str = "") -> Sizing | Problem:
    preset = presets.find(model)
    assert preset is not None
    return size(
        subject, model=Model(facts=preset.facts, preset=preset), sizes=SIZES, now=NOW, context=context, brought=brought
    )


def well(found: Sizing | Problem) -> Sizing:
    assert isinstance(found, Sizing), found
    return found


def refused(found: Sizing | Problem) -> Problem:
    assert isinstance(found, Problem), found
    return found


def test_named_size_is_kept() -> None:
    found = well(sized(workspace(instanceType=A100.lower())))

    assert (found.instance_types, found.nodes, found.gpus) == ((A100,), 1, 1)
    assert found.disk_gib == 107
    assert "phi" not in found.why
    assert found.why.startswith("1 x Standard_NC24ads_A100_v4: tensor parallel 1; ")


def test_retired_size_is_served_with_word_of_its_successors() -> None:
    found = well(sized(workspace(instanceType="Standard_NC6s_v3"), "phi-3-mini-4k-instruct"))

    assert found.instance_types == ("Standard_NC6s_v3",)
    assert "is retired by Azure since 2025-09-30; successors: Standard_NC4as_T4_v3" in found.why


@pytest.mark.parametrize(
    ("model", "count", "annotations", "nodes"),
    [
        ("llama-3.3-70b-instruct", None, {}, 3),
        ("llama-3.3-70b-instruct", 4, {}, 4),
        ("llama-3.3-70b-instruct", 1, {"gpu-provisioner.kaito.sh/node-count": "3"}, 3),
        ("llama-3.3-70b-instruct", None, {"gpu-provisioner.kaito.sh/node-count": "many"}, 3),
        ("phi-4", None, {}, 1),
        ("phi-4", 2, {}, 2),
    ],
)
def test_number_of_nodes_follows_from_the_model_unless_it_is_given(
    model: str, count: int | None, annotations: dict[str, str], nodes: int
) -> None:
    given = {} if count is None else {"count": count}

    assert well(sized(workspace(model, annotations=annotations, instanceType=A100, **given), model)).nodes == nodes


@pytest.mark.parametrize(
    ("model", "first"),
    [
        ("phi-3-mini-4k-instruct", "Standard_NC4as_T4_v3"),
        ("deepseek-r1-0528", "Standard_ND96isr_H200_v5"),
    ],
)
def test_cheapest_size_that_fits(model: str, first: str) -> None:
    found = well(sized(workspace(model), model))
    alternatives = [SIZES.find(name) for name in found.instance_types]
    prices = [known.price or 0 for known in alternatives if known]

    assert found.instance_types[0] == first
    assert prices[0] == min(prices)
    assert {known.gpu_count for known in alternatives if known} == {found.gpus}


def test_alternatives_have_other_gpus() -> None:
    found = well(sized(workspace()))
    gpus = [known.gpu_name for name in found.instance_types if (known := SIZES.find(name))]

    assert gpus[0] == "RTX PRO 6000 BSE"
    assert len(set(gpus[:3])) == 3, gpus


def test_nodes_that_are_brought_say_the_size() -> None:
    assert well(sized(workspace(), brought="Standard_NC40ads_H100_v5")).instance_types == ("Standard_NC40ads_H100_v5",)


def test_longer_sequences_take_more() -> None:
    short = well(sized(workspace("phi-3-mini-128k-instruct"), "phi-3-mini-128k-instruct"))
    long = well(sized(workspace("phi-3-mini-128k-instruct"), "phi-3-mini-128k-instruct", context=131072))

    assert short.size is not None
    assert long.size is not None
    assert long.size.gpu_memory_gib * long.gpus > short.size.gpu_memory_gib * short.gpus
    assert long.layout is not None
    assert long.layout.context == 131072


@pytest.mark.parametrize(
    ("resource", "model", "reason", "said"),
    [
        ({"instanceType": "Standard_NC999"}, "phi-4", "UnknownInstanceType", "'Standard_NC999' is no VM size"),
        ({"instanceType": "Standard_ND96isr_MI300X_v5"}, "phi-4", "UnsuitableInstanceType", "has AMD GPUs"),
        ({"instanceType": "Standard_NC24"}, "phi-4", "UnsuitableInstanceType", "K80 GPUs, which are too old for vLLM"),
        ({"instanceType": "Standard_NC6s_v3"}, "gpt-oss-20b", "UnsuitableInstanceType", "too old for weights in mxfp4"),
        ({"instanceType": A100, "count": 1}, "llama-3.3-70b-instruct", "ModelTooLarge", "3 Nodes of it would do"),
        ({"count": 1}, "phi-4", "", ""),
    ],
)
def test_what_does_not_do_is_said_with_what_would(resource: dict[str, Any], model: str, reason: str, said: str) -> None:
    found = sized(workspace(model, **resource), model)
    if not reason:
        well(found)
        return
    problem = refused(found)

    assert problem.reason == reason
    assert said in problem.message
    assert "Sizes that would do, cheapest first: Standard_N" in problem.message


def test_missing_memory_is_told_in_numbers_first() -> None:
    found = refused(sized(workspace("llama-3.3-70b-instruct", instanceType=A100, count=1), "llama-3.3-70b-instruct"))

    assert found.message.startswith("71.5 GiB are missing on each GPU of Standard_NC24ads_A100_v4 (1 x 80 GiB)")


def test_sequence_that_is_longer_than_the_model_allows() -> None:
    found = refused(sized(workspace(instanceType=A100), context=32768))

    assert found.reason == "ContextTooLong"
    assert found.message.startswith("max-model-len is 32768, and microsoft/phi-4 takes 16384 tokens at most")


def test_template_needs_a_named_size() -> None:
    raw = {"metadata": {"namespace": "ml", "name": "own", "uid": "1"}, "inference": {"template": {"spec": {}}}}
    template = parse_workspace(raw)
    named = parse_workspace({**raw, "resource": {"instanceType": "Standard_D8s_v5", "count": 2}})
    known = parse_workspace({**raw, "resource": {"instanceType": A100, "count": 2}})

    assert refused(size(template, model=None, sizes=SIZES, now=NOW)).reason == "InstanceTypeMissing"
    assert well(size(named, model=None, sizes=SIZES, now=NOW)).gpus == 0
    found = well(size(known, model=None, sizes=SIZES, now=NOW))
    assert (found.nodes, found.gpus, found.disk_gib, found.layout) == (2, 1, 1024, None)


@pytest.mark.parametrize(
    ("method", "instance_type", "fits"),
    [
        ("qlora", "Standard_NC6s_v3", True),
        ("lora", "Standard_NC6s_v3", True),
        ("qlora", "Standard_NC4as_T4_v3", True),
    ],
)
def test_tuning_takes_one_node(method: str, instance_type: str, fits: bool) -> None:
    preset = presets.find("phi-3-mini-4k-instruct")
    assert preset is not None
    tuned = parse_workspace(
        {
            "metadata": {"namespace": "ml", "name": "tune", "uid": "1"},
            "resource": {"instanceType": instance_type, "count": 1},
            "tuning": {"preset": {"name": "phi-3-mini-4k-instruct"}, "method": method},
        }
    )
    found = size(tuned, model=Model(facts=preset.facts, preset=preset), sizes=SIZES, now=NOW)

    assert isinstance(found, Sizing) is fits
    assert well(found).nodes == 1
    assert well(found).disk_gib == 187


def test_tuning_that_does_not_fit() -> None:
    preset = presets.find("phi-4")
    assert preset is not None
    tuned = parse_workspace(
        {
            "metadata": {"namespace": "ml", "name": "tune", "uid": "1"},
            "resource": {"instanceType": "Standard_NC6s_v3"},
            "tuning": {"preset": {"name": "phi-4"}, "method": "lora"},
        }
    )
    found = refused(size(tuned, model=Model(facts=preset.facts, preset=preset), sizes=SIZES, now=NOW))

    assert found.reason == "ModelTooLarge"
