"""How models are split over GPUs."""

from dataclasses import replace

import pytest

from provisioner.gpus import catalogue, presets
from provisioner.gpus.layout import Layout, TooLarge, arrange, divides
from provisioner.gpus.model_facts import ModelFacts


def on(alias: str, size: str, *, nodes: int | None = None, context: int = 0) -> Layout | TooLarge:
    preset, found = presets.find(alias), catalogue.find(size)
    assert preset is not None
    assert found is not None
    return arrange(
        preset.facts,
        gpus_per_node=found.gpu_count,
        gpu_memory_gib=found.gpu_memory_gib,
        nodes=nodes,
        context=context,
    )


def shape(layout: Layout | TooLarge) -> tuple[int, int, int, int]:
    assert isinstance(layout, Layout), layout
    return layout.nodes, layout.tensor, layout.pipeline, layout.data


@pytest.mark.parametrize(
    ("alias", "size", "nodes", "tensor", "pipeline", "data"),
    [
        ("phi-3-mini-4k-instruct", "Standard_NC6s_v3", 1, 1, 1, 1),
        ("phi-3-mini-128k-instruct", "Standard_NC24ads_A100_v4", 1, 1, 1, 1),
        ("phi-4-mini-instruct", "Standard_NC96ads_A100_v4", 1, 1, 1, 4),
        ("llama-3.1-8b-instruct", "Standard_NV36ads_A10_v5", 1, 1, 1, 1),
        ("llama-3.1-8b-instruct", "Standard_NV72ads_A10_v5", 1, 2, 1, 1),
        ("llama-3.3-70b-instruct", "Standard_NC24ads_A100_v4", 3, 1, 3, 1),
        ("llama-3.3-70b-instruct", "Standard_NC48ads_A100_v4", 2, 2, 2, 1),
        ("llama-3.3-70b-instruct", "Standard_ND96isr_H100_v5", 1, 8, 1, 1),
        ("deepseek-r1-0528", "Standard_ND96isr_H200_v5", 1, 8, 1, 1),
        ("deepseek-r1-0528", "Standard_ND96isr_H100_v5", 2, 8, 2, 1),
    ],
)
def test_fewest_nodes(alias: str, size: str, nodes: int, tensor: int, pipeline: int, data: int) -> None:
    assert shape(on(alias, size)) == (nodes, tensor, pipeline, data)


def test_heads_that_do_not_divide_over_all_gpus_leave_copies() -> None:
    # 40 heads with 10 KV heads: vLLM refuses tensor parallel 8.
    assert shape(on("phi-4", "Standard_ND96asr_v4")) == (1, 2, 1, 4)


@pytest.mark.parametrize("preset", presets.presets(), ids=lambda preset: preset.aliases[0])
def test_whatever_is_arranged_holds_together(preset: presets.Preset) -> None:
    for size in catalogue.sizes():
        layout = arrange(preset.facts, gpus_per_node=size.gpu_count, gpu_memory_gib=size.gpu_memory_gib)
        if isinstance(layout, TooLarge):
            assert layout.missing_gib > 0, size.name
            continue
        assert layout.tensor * layout.pipeline * layout.data == layout.nodes * layout.gpus_per_node, size.name
        assert layout.tensor <= size.gpu_count, size.name
        assert divides(preset.facts, layout.tensor), size.name
        assert layout.pipeline <= preset.layers, size.name
        assert layout.need.total <= 0.9 * size.gpu_memory_gib * 2**30, size.name
        assert layout.context >= min(2048, preset.context), size.name


def test_one_node_fewer_would_not_do() -> None:
    for nodes in (1, 2):
        assert isinstance(on("llama-3.3-70b-instruct", "Standard_NC24ads_A100_v4", nodes=nodes), TooLarge)


def test_number_of_nodes_that_was_asked_for_is_kept() -> None:
    assert shape(on("phi-4", "Standard_NC24ads_A100_v4", nodes=2)) == (2, 1, 2, 1)


def test_too_large_says_what_each_gpu_lacks() -> None:
    found = on("phi-4", "Standard_NC6s_v3", nodes=1)

    assert isinstance(found, TooLarge)
    assert 15 < found.missing_gib < 20


def test_longer_context_takes_more_nodes() -> None:
    alias, size = "llama-3.1-8b-instruct", "Standard_NV36ads_A10_v5"
    short, long = on(alias, size), on(alias, size, context=65536)

    assert isinstance(short, Layout)
    assert isinstance(long, Layout)
    assert short.nodes < long.nodes
    assert short.context < 65536 <= long.context


def test_one_kv_head_is_on_every_gpu() -> None:
    facts = ModelFacts(
        name="multi-query",
        weights_bytes=60 * 2**30,
        layers=40,
        attention_layers=40,
        attention_heads=64,
        kv_heads=1,
        head_dim=128,
        context=8192,
    )
    assert shape(arrange(facts, gpus_per_node=8, gpu_memory_gib=40.0)) == (1, 8, 1, 1)
    assert not divides(replace(facts, attention_heads=60), 8)


def test_text_of_a_layout() -> None:
    assert str(on("llama-3.3-70b-instruct", "Standard_NC48ads_A100_v4")) == "tensor parallel 2, pipeline parallel 2"
    assert str(on("phi-4-mini-instruct", "Standard_NC96ads_A100_v4")) == "tensor parallel 1, 4 copies"
