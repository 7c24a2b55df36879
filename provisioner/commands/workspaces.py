"""Workspaces of a plan: what each runs on and the NodeClaims that are written for it, as their controller decides."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from provisioner.apis.node import Node
from provisioner.apis.workspace import Workspace
from provisioner.commands.documents import Documents, Wish, WorkspaceWish, as_new
from provisioner.commands.text import money
from provisioner.gpus import presets
from provisioner.placement.size import Sizes
from provisioner.placement.sizes import KnownSizes, NothingListed
from provisioner.serving.environment import INFERENCE_CONFIG, TRAINING_CONFIG
from provisioner.workspace import checks, nodes, references
from provisioner.workspace.config_map import max_model_len
from provisioner.workspace.hub import Hub
from provisioner.workspace.sizing import size
from provisioner.workspace.view import Inputs, Model, Problem, Sizing

# Those that the controller goes by, which asks nothing of Azure.
_BUILT_IN: Final = KnownSizes(NothingListed())
LOOKUP_FAILED: Final = "ModelLookupFailed"
# Seconds in which all models have to be found: a person waits.
_PATIENCE: Final = 20.0


@dataclass(frozen=True, kw_only=True)
class Served:
    """What becomes of a Workspace: `sizing` says on what it runs, or `problem` why it does not.

    `claims` are what is planned, `bodies` the same as they would be written; `taken` are Nodes that somebody has
    brought and that are used in their place.
    """

    wish: WorkspaceWish
    model: Model | None = None
    sizing: Sizing | None = None
    problem: Problem | None = None
    claims: tuple[Wish, ...] = ()
    bodies: tuple[Mapping[str, Any], ...] = ()
    taken: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def may_pass(self) -> bool:
        """Tell whether the problem is one of now, and not of what is written."""
        return self.problem is not None and self.problem.reason == LOOKUP_FAILED


def unknown_models(documents: Documents) -> tuple[str, ...]:
    """Return the models that are no presets, of Workspaces that are well otherwise."""
    wanted = (
        references.model_name(wish.workspace)
        for wish in documents.wishes
        if isinstance(wish, WorkspaceWish) and checks.check(wish.workspace) is None
    )
    return tuple(dict.fromkeys(name for name in wanted if name and presets.find(name) is None))


async def look_up(
    models: Iterable[str], *, endpoint: str, token: str = "", patience: float = _PATIENCE
) -> Mapping[str, Model | Problem]:
    """Ask the Hugging Face Hub for models, side by side. `endpoint` is empty where nothing may be asked."""
    if not endpoint:
        return {name: _not_asked(name) for name in models}
    waiting = {name: asyncio.Event() for name in models}
    if not waiting:
        return {}
    hub = Hub(endpoint=endpoint, on_news=lambda name: waiting[name].set())
    found: dict[str, Model | Problem] = {}
    try:
        for name, event in waiting.items():
            if hub.find(name, token=token) is not None:
                # No name of the Hub's: nobody is asked, and no news will come.
                event.set()
        _, late = await asyncio.wait(
            [asyncio.create_task(event.wait(), name=name) for name, event in waiting.items()], timeout=patience
        )
        for task in late:
            task.cancel()
        for name in waiting:
            found[name] = hub.find(name, token=token) or _too_slow(name, endpoint)
    finally:
        await hub.close()
    return found


def _not_asked(name: str) -> Problem:
    return Problem(reason=LOOKUP_FAILED, message=f"{name} is no preset, and no models are looked up here.")


def _too_slow(name: str, endpoint: str) -> Problem:
    return Problem(reason=LOOKUP_FAILED, message=f"{name} could not be looked up: {endpoint} takes too long.")


def serve(
    wish: WorkspaceWish,
    *,
    models: Mapping[str, Model | Problem],
    configs: Mapping[tuple[str, str], Mapping[str, str]],
    brought: tuple[Node, ...],
    region: Sizes,
    now: datetime,
) -> Served:
    """Return what becomes of a Workspace.

    `models` are those that were looked up, `brought` the cluster's Nodes, `region` the sizes of the region: by these it
    is told what would be cheaper, while the controller goes by those that are built in.
    """
    workspace = wish.workspace
    inputs, notes = _inputs(workspace, configs)
    problem = checks.check(workspace) or references.missing(workspace, inputs)
    if problem is not None:
        return Served(wish=wish, problem=problem)
    name = references.model_name(workspace)
    preset = presets.find(name)
    found = Model(facts=preset.facts, preset=preset) if preset else models.get(name)
    if isinstance(found, Problem):
        return Served(wish=wish, problem=found)
    context = _context(workspace, inputs)
    if isinstance(context, Problem):
        return Served(wish=wish, model=found, problem=context)
    there = nodes.brought_type(workspace, brought, sizes=_BUILT_IN)
    sizing = size(workspace, model=found, sizes=_BUILT_IN, now=now, context=context, brought=there)
    if isinstance(sizing, Problem):
        return Served(wish=wish, model=found, problem=sizing)
    held = nodes.hold(workspace, sizing=sizing, claims=(), nodes=brought)
    count = len(held.missing)
    claims = tuple(
        Wish(
            label=wish.label if count == 1 else f"{wish.label} {number}/{count}",
            source=wish.source,
            claim=as_new(body, source=wish.source),
            # Names follow from the UID, which the API server gives.
            is_named=False,
            workspace=workspace.key,
        )
        for number, body in enumerate(held.missing, start=1)
    )
    if not (workspace.resource.instance_type or there):
        notes += _cheaper(sizing, size(workspace, model=found, sizes=region, now=now, context=context))
    return Served(
        wish=wish,
        model=found,
        sizing=sizing,
        claims=claims,
        bodies=held.missing,
        taken=tuple(node.name for node in (*held.taken, *held.ready, *held.unready)),
        notes=notes,
    )


def _inputs(
    workspace: Workspace, configs: Mapping[tuple[str, str], Mapping[str, str]]
) -> tuple[Inputs, tuple[str, ...]]:
    """Return what the Workspace refers to, as far as it is in the files; what is not is taken to be there and well."""
    notes: tuple[str, ...] = ()
    data: dict[str, Mapping[str, str]] = {}
    if name := references.config_name(workspace):
        known = configs.get((workspace.namespace, name))
        if known is None:
            notes = (f"ConfigMap {name} is in none of the files: planned as if it said nothing.",)
        data[name] = {INFERENCE_CONFIG: "", TRAINING_CONFIG: ""} if known is None else known
    secrets: dict[str, frozenset[str]] = {}
    for reference in references.secrets(workspace):
        secrets[reference.name] = secrets.get(reference.name, frozenset()) | {reference.key}
    return Inputs(configs=data, secrets=secrets), notes


def _context(workspace: Workspace, inputs: Inputs) -> int | Problem:
    if workspace.inference is None or not workspace.inference.config:
        return 0
    return max_model_len(workspace.inference.config, inputs.configs[workspace.inference.config])


def _cheaper(sizing: Sizing, local: Sizing | Problem) -> tuple[str, ...]:
    """Say which size of the region would do better than those that the claims name."""
    if isinstance(local, Problem) or local.size is None or local.size.name in sizing.instance_types:
        return ()
    price = local.size.price or Decimal(0)
    text = (
        f"In this region {local.nodes} x {local.size.name} ({money(price * local.nodes)} $/h) is the cheapest that "
        "fits; the controller knows no region. Name it in resource.instanceType to have it."
    )
    return (text,)
