"""What a Workspace runs on: of which size its Nodes are, how many of them there are and how its model is split.

Pure. What a Workspace says itself is kept: an instance type, a number of Nodes. What it leaves open follows from the
model: its weights, the KV cache and vLLM's overhead have to fit, and of what fits the cheapest is taken.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from provisioner.apis import names
from provisioner.apis.nodeclaim import NodeClaimSpec
from provisioner.apis.workspace import Workspace
from provisioner.gpus import catalogue, memory
from provisioner.gpus.layout import Layout, TooLarge, arrange
from provisioner.gpus.model_facts import ModelFacts
from provisioner.placement.market import Market
from provisioner.placement.place import place
from provisioner.placement.size import Size, Sizes
from provisioner.workspace.view import Model, Problem, Sizing

# Beside the weights on the Node's disk: the system, images and what the pod writes, as KAITO reckons.
_DISK_BESIDE: Final = 80
# Of a pod template nobody knows what it downloads; KAITO's figure.
_DISK_OF_TEMPLATE: Final = 1024
# Data and checkpoints of a tuning.
_DISK_OF_TUNING: Final = 100
# Sizes that a claim names beside the best one, for a provisioner that can fall back on them.
_ALTERNATIVES: Final = 4
# Sizes that a message names.
_SHOWN: Final = 3
# CUDA's compute capability that vLLM's kernels want at least, and those for quantised weights
# (https://docs.vllm.ai/en/latest/features/quantization/).
_CAPABILITY: Final = Decimal("7.0")
_CAPABILITIES: Final[Mapping[str, Decimal]] = {
    "fp8": Decimal("8.0"),
    "mxfp4": Decimal("8.0"),
    "awq": Decimal("7.5"),
    "gptq": Decimal("7.5"),
}
# Of a number of Nodes; the checks have a word about more.
_DIGITS: Final = 4
# More Nodes than this are asked for by those alone who name a size and a number.
_MAX_NODES: Final = 8


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    size: Size
    layout: Layout | None
    nodes: int

    @property
    def price(self) -> Decimal:
        return (self.size.price or Decimal(10**6)) * self.nodes


def size(
    workspace: Workspace, *, model: Model | None, sizes: Sizes, now: datetime, context: int = 0, brought: str = ""
) -> Sizing | Problem:
    """Return what the Workspace runs on, or why it cannot be served.

    `model` is None for a pod template. `context` is the sequence length that its configuration asks for, 0 where it
    does not. `brought` is the instance type of Nodes that are there already, for a Workspace that names none. What was
    decided once, and is in the status, stays: another decision would move a running model to other Nodes.
    """
    return _Sizer(workspace, model=model, sizes=sizes, now=now, context=context).size(brought)


class _Sizer:
    def __init__(self, workspace: Workspace, *, model: Model | None, sizes: Sizes, now: datetime, context: int) -> None:
        self._workspace = workspace
        self._facts: ModelFacts | None = model.facts if model else None
        self._sizes = sizes
        self._now = now
        self._context = context
        self._is_tuning = workspace.tuning is not None
        self._wanted = workspace.target_node_count or _count(workspace)
        partition = workspace.resource.partition
        # How many of a Node's GPUs the pod takes, 0 for all of them.
        self._part = partition.count or 0 if partition else 0

    def size(self, brought: str) -> Sizing | Problem:
        facts = self._facts
        if facts and facts.context and self._context > facts.context:
            return Problem(
                reason="ContextTooLong",
                message=f"max-model-len is {self._context}, and {facts.name} takes {facts.context} tokens at most. "
                "Lower it in the ConfigMap that inference.config names.",
            )
        if recorded := self._workspace.instance_types:
            found = self._on_named(recorded[0])
            return replace(found, instance_types=recorded) if isinstance(found, Sizing) else found
        named = self._workspace.resource.instance_type or brought
        return self._on_named(named) if named else self._on_cheapest()

    def _on_named(self, name: str) -> Sizing | Problem:
        found = self._sizes.find(name)
        if found is None and self._facts is None:
            # A template may be for a size without GPUs, and those are not known here.
            return self._sizing([_Candidate(size=Size(name=name), layout=None, nodes=self._wanted or 1)])
        if found is None:
            return Problem(
                reason="UnknownInstanceType",
                message=f"resource.instanceType {name!r} is no VM size that is known here. "
                f"{self._would_do() or 'Name a GPU size as Azure spells it.'}",
            )
        if self._facts is None:
            return self._sizing([_Candidate(size=found, layout=None, nodes=self._wanted or 1)])
        problem = self._unsuitable(found)
        if problem is not None:
            return problem
        candidate = self._candidate(found, nodes=self._wanted)
        if isinstance(candidate, TooLarge):
            return self._too_large(found, candidate)
        return self._sizing([candidate])

    def _unsuitable(self, found: Size) -> Problem | None:
        if not found.gpu_count:
            what = "has no GPU"
        elif found.gpu_resource != names.NVIDIA_GPU:
            what = "has AMD GPUs, and the serving image is for NVIDIA's"
        elif self._part > found.gpu_count:
            what = f"has {found.gpu_count} GPUs, and resource.partition.count is {self._part}"
        elif not self._is_new_enough(found):
            what = f"has {found.gpu_name} GPUs, which are too old for {self._what()}"
        else:
            return None
        return Problem(
            reason="UnsuitableInstanceType",
            message=f"resource.instanceType {found.name} {what}. {self._would_do()}".rstrip(),
        )

    def _is_new_enough(self, size: Size) -> bool:
        known = catalogue.find(size.name)
        if known is None or known.compute_capability is None:
            return True
        quantization = self._facts.quantization if self._facts else ""
        return Decimal(known.compute_capability) >= _CAPABILITIES.get(quantization, _CAPABILITY)

    def _what(self) -> str:
        quantization = self._facts.quantization if self._facts else ""
        return f"weights in {quantization}" if quantization in _CAPABILITIES else "vLLM"

    def _on_cheapest(self) -> Sizing | Problem:
        if self._facts is None:
            return Problem(
                reason="InstanceTypeMissing",
                message="resource.instanceType is missing: what a pod template needs cannot be told from its model. "
                "Name a VM size.",
            )
        fitting = self._fitting()
        if not fitting:
            return Problem(
                reason="ModelTooLarge",
                message=f"{self._facts.name} ({self._facts.weights_gib:.0f} GiB of weights) fits on no VM size "
                f"that is known here{f' with resource.count {self._wanted}' if self._wanted else ''}.",
            )
        return self._sizing(fitting)

    def _fitting(self) -> list[_Candidate]:
        """Return what the model fits on, cheapest first; sizes of one kind only, so that any of them will do."""
        candidates = {
            found.size.name: found
            for size in self._sizes.all()
            if size.gpu_count >= max(self._part, 1) and size.gpu_resource == names.NVIDIA_GPU
            if not size.retired and size.price
            if self._is_new_enough(size)
            if isinstance(found := self._candidate(size, nodes=self._wanted, most=_MAX_NODES), _Candidate)
        }
        if not candidates:
            return []
        # One Node where one will do: several have to talk to each other over the network.
        fewest = min(candidate.nodes for candidate in candidates.values())
        spec = NodeClaimSpec.model_validate(
            {
                "requirements": [
                    {
                        "key": names.INSTANCE_TYPE_LABEL,
                        "operator": "In",
                        "values": [name for name, found in candidates.items() if found.nodes == fewest],
                    },
                    {"key": names.OS_LABEL, "operator": "In", "values": ["linux"]},
                    {"key": names.ARCH_LABEL, "operator": "In", "values": ["amd64"]},
                    {
                        "key": names.CAPACITY_TYPE_LABEL,
                        "operator": "In",
                        "values": [names.CAPACITY_TYPE_ON_DEMAND],
                    },
                ],
                "resources": {"requests": {names.STORAGE: f"{self._disk()}Gi"}},
            }
        )
        placement = place(spec, market=Market(sizes=self._sizes, now=self._now))
        offered = [candidates[offer.size.name] for offer in placement.offers]
        return [found for found in offered if _shape(found) == _shape(offered[0])]

    def _candidate(self, size: Size, *, nodes: int, most: int = 64) -> _Candidate | TooLarge:
        facts = self._facts
        if facts is None:
            return _Candidate(size=size, layout=None, nodes=nodes or 1)
        if self._is_tuning:
            return self._tuned_on(facts, size)
        if not size.gpu_memory_gib:
            # A size that the catalogue does not have: the author vouches for it.
            return _Candidate(size=size, layout=None, nodes=nodes or 1)
        layout = arrange(
            facts,
            gpus_per_node=self._part or size.gpu_count,
            gpu_memory_gib=size.gpu_memory_gib,
            nodes=nodes or None,
            context=self._context,
            max_nodes=most,
        )
        if isinstance(layout, TooLarge):
            return layout
        return _Candidate(size=size, layout=layout, nodes=layout.nodes)

    def _tuned_on(self, facts: ModelFacts, size: Size) -> _Candidate | TooLarge:
        method = self._workspace.tuning.method.lower() if self._workspace.tuning else ""
        needed = memory.tuning_bytes(facts, quantized=method == "qlora") / memory.GIB
        if size.gpu_memory_gib and needed > size.gpu_memory_gib:
            return TooLarge(nodes=1, missing_gib=needed - size.gpu_memory_gib)
        return _Candidate(size=size, layout=None, nodes=1)

    def _too_large(self, size: Size, found: TooLarge) -> Problem:
        facts = self._facts
        assert facts is not None  # noqa: S101 -- nothing else is too large
        nodes = self._wanted or found.nodes
        where = f"{nodes} x {size.name}" if nodes > 1 else size.name
        more = self._candidate(size, nodes=0)
        enough = (
            f" {more.nodes} Nodes of it would do (resource.count)."
            if isinstance(more, _Candidate) and more.nodes > nodes
            else ""
        )
        return Problem(
            reason="ModelTooLarge",
            message=f"{found.missing_gib:.1f} GiB are missing on each GPU of {where} ({self._part or size.gpu_count} x "
            f"{size.gpu_memory_gib:.0f} GiB) for {facts.name} ({facts.weights_gib:.1f} GiB of weights)."
            f"{enough} {self._would_do()}".rstrip(),
        )

    def _would_do(self) -> str:
        if self._facts is None:
            return ""
        found = self._fitting()
        shown = ", ".join(candidate.size.name for candidate in found[:_SHOWN])
        return f"Sizes that would do, cheapest first: {shown}." if shown else ""

    def _disk(self) -> int:
        if self._facts is None:
            return _DISK_OF_TEMPLATE
        beside = _DISK_OF_TUNING if self._is_tuning else 0
        return math.floor(self._facts.weights_gib + _DISK_BESIDE + beside)

    def _sizing(self, candidates: list[_Candidate]) -> Sizing:
        best = candidates[0]
        return Sizing(
            nodes=best.nodes,
            instance_types=_spread(candidates)[: 1 + _ALTERNATIVES],
            size=best.size,
            gpu_resource=best.size.gpu_resource,
            gpus=self._part or best.size.gpu_count,
            disk_gib=self._disk(),
            layout=best.layout,
            why=self._why(best),
        )

    def _why(self, best: _Candidate) -> str:
        parts = [f"{best.nodes} x {best.size.name}"]
        if best.layout is not None:
            gib = best.layout.need.total / memory.GIB
            parts.append(
                f"{best.layout}; {gib:.1f} of {best.size.gpu_memory_gib:.1f} GiB a GPU, sequences of up to "
                f"{best.layout.context} tokens"
            )
        text = ": ".join(parts) + "."
        if best.size.retired:
            text += (
                f" {best.size.name} is retired by Azure since {best.size.retired}; successors: "
                f"{', '.join(best.size.successors[:_SHOWN])}."
            )
        return text


def _spread(candidates: list[_Candidate]) -> tuple[str, ...]:
    """Return the names of sizes, cheapest first, each GPU's cheapest before any GPU's next.

    What a region does not have or has run out of it mostly lacks by the GPU: sizes with the same one are no way out.
    """
    seen: dict[str, int] = {}
    ranked = []
    for position, candidate in enumerate(candidates):
        turn = seen.get(candidate.size.gpu_name, 0)
        seen[candidate.size.gpu_name] = turn + 1
        ranked.append((turn, position, candidate.size.name))
    return tuple(name for _, _, name in sorted(ranked))


def _shape(candidate: _Candidate) -> tuple[object, ...]:
    layout = candidate.layout
    if layout is None:
        return candidate.nodes, candidate.size.gpu_count
    return layout.nodes, layout.gpus_per_node, layout.tensor, layout.pipeline, layout.data


def _count(workspace: Workspace) -> int:
    """Return the number of Nodes that the Workspace asks for, 0 where it leaves that open."""
    annotated = workspace.annotations.get(names.NODE_COUNT_ANNOTATION, "")
    if annotated.isascii() and annotated.isdecimal() and len(annotated) <= _DIGITS and int(annotated):
        return int(annotated)
    return workspace.resource.count or 0
