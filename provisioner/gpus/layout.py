"""How a model is split over the GPUs of one or more VMs of a size. Pure."""

from dataclasses import dataclass
from typing import Final

from provisioner.gpus.memory import GIB, LEAST_CONTEXT, Need, context_that_fits, need, usable
from provisioner.gpus.model_facts import ModelFacts

# More VMs than this wait for each other more than they work; no preset comes near.
MAX_NODES: Final = 64
# Below this part of one GPU's memory a model is run once on each GPU: copies answer more than one split copy does.
_SMALL: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Layout:
    """GPUs by what they do: `data` copies of the model, each over `tensor` x `pipeline` GPUs.

    `need` is what each GPU holds, `context` the longest sequence in tokens that there is room for.
    """

    nodes: int
    gpus_per_node: int
    tensor: int
    pipeline: int
    data: int
    need: Need
    context: int

    def __str__(self) -> str:
        parts = [f"tensor parallel {self.tensor}"]
        if self.pipeline > 1:
            parts.append(f"pipeline parallel {self.pipeline}")
        if self.data > 1:
            parts.append(f"{self.data} copies")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class TooLarge:
    """The model does not fit. `missing_gib` is what each GPU lacks in the best layout there is."""

    nodes: int
    missing_gib: float


def arrange(
    facts: ModelFacts,
    *,
    gpus_per_node: int,
    gpu_memory_gib: float,
    nodes: int | None = None,
    context: int = 0,
    max_nodes: int = MAX_NODES,
) -> Layout | TooLarge:
    """Return the layout on that many VMs, or on as few as it takes where `nodes` is None.

    `context` is how many tokens a sequence must be able to have, 0 for the least that is of use. Heads are divided
    evenly, as vLLM demands; a model that fits into half of a GPU is copied to each instead.
    """
    wanted = context or min(facts.context or LEAST_CONTEXT, LEAST_CONTEXT)
    tried: TooLarge | None = None
    for number in (nodes,) if nodes is not None else range(1, min(max_nodes, max(facts.layers, 1)) + 1):
        layout = _on(facts, nodes=number, gpus=gpus_per_node, memory_gib=gpu_memory_gib, context=wanted)
        if isinstance(layout, Layout):
            return layout
        if tried is None or layout.missing_gib < tried.missing_gib:
            tried = layout
    return tried or TooLarge(nodes=0, missing_gib=0.0)


def divides(facts: ModelFacts, tensor: int) -> bool:
    """Tell whether the model's heads can be shared out over that many GPUs."""
    if facts.attention_heads % tensor:
        return False
    return facts.latent is not None or facts.kv_heads % tensor == 0 or tensor % facts.kv_heads == 0


def _on(facts: ModelFacts, *, nodes: int, gpus: int, memory_gib: float, context: int) -> Layout | TooLarge:
    is_small = nodes == 1 and gpus > 1 and facts.weights_gib < _SMALL * memory_gib
    if is_small and (single := _layout(facts, 1, 1, nodes=1, gpus=gpus, memory_gib=memory_gib, context=context)):
        return single
    tensor = max(number for number in range(1, gpus + 1) if gpus % number == 0 and divides(facts, number))
    # What heads do not divide over is split by layers where there are several VMs or no other way, and copied else.
    for pipeline in dict.fromkeys((nodes, nodes * (gpus // tensor))):
        if pipeline > facts.layers or (nodes > 1 and pipeline * tensor != nodes * gpus):
            continue
        found = _layout(facts, tensor, pipeline, nodes=nodes, gpus=gpus, memory_gib=memory_gib, context=context)
        if found is not None:
            return found
    stages = nodes * (gpus // tensor)
    least = need(facts, tensor_parallel=tensor, pipeline_parallel=stages, context=context, memory_gib=memory_gib)
    return TooLarge(nodes=nodes, missing_gib=max(least.total - usable(memory_gib), 0.0) / GIB)


def _layout(
    facts: ModelFacts, tensor: int, pipeline: int, *, nodes: int, gpus: int, memory_gib: float, context: int
) -> Layout | None:
    held = need(facts, tensor_parallel=tensor, pipeline_parallel=pipeline, context=context, memory_gib=memory_gib)
    if held.total > usable(memory_gib):
        return None
    return Layout(
        nodes=nodes,
        gpus_per_node=gpus,
        tensor=tensor,
        pipeline=pipeline,
        data=nodes * gpus // (tensor * pipeline),
        need=held,
        context=context_that_fits(facts, tensor_parallel=tensor, pipeline_parallel=pipeline, memory_gib=memory_gib),
    )
