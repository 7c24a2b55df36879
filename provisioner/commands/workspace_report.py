"""A Workspace's part of a plan as text and as a document. Pure."""

from collections.abc import Iterator
from typing import Any

import yaml

from provisioner.apis import names
from provisioner.commands.text import clean, fields
from provisioner.commands.workspaces import Served
from provisioner.gpus import memory
from provisioner.gpus.layout import Layout
from provisioner.workspace import services
from provisioner.workspace.view import Model, Sizing


def workspace_lines(served: Served, *, show_body: bool) -> Iterator[str]:
    """Yield the lines for people."""
    workspace = served.wish.workspace
    yield clean(f"{names.WORKSPACE_KIND} {served.wish.label} ({served.wish.source}): {_outcome(served)}")
    rows: list[tuple[str, str]] = []
    if served.model is not None:
        rows.append(("model", _model_text(served.model)))
    if served.sizing is not None:
        rows += _sizing_rows(served, served.sizing)
        if workspace.inference is not None:
            rows.append(("endpoint", services.endpoint(workspace)))
    if served.problem is not None:
        rows.append(("why", f"{served.problem.reason}: {served.problem.message}"))
    rows += [("note", note) for note in served.notes]
    yield from fields(rows)
    if show_body:
        for body in served.bodies:
            yield "  NodeClaim (its name follows from the UID, which the API server gives)"
            # safe_dump escapes what a terminal would obey.
            yield from (f"    {line}" for line in yaml.safe_dump(body, sort_keys=False, width=110).splitlines())


def _outcome(served: Served) -> str:
    if served.problem is None:
        claims = len(served.claims)
        return f"would be given {claims} NodeClaim{'' if claims == 1 else 's'}"
    return "cannot be planned" if served.may_pass else "is refused as it is written"


def _model_text(model: Model) -> str:
    facts = model.facts
    parts = [facts.name, f"{facts.weights_gib:.1f} GiB of weights"]
    if facts.quantization:
        parts.append(facts.quantization)
    if facts.context:
        parts.append(f"sequences of up to {facts.context} tokens")
    return ", ".join(parts)


def _sizing_rows(served: Served, sizing: Sizing) -> Iterator[tuple[str, str]]:
    yield "runs on", sizing.why
    if len(sizing.instance_types) > 1:
        yield "or on", ", ".join(sizing.instance_types[1:])
    if served.taken:
        yield "brought", ", ".join(served.taken)
    yield "OS disk", f"{sizing.disk_gib} GiB"


def workspace_dict(served: Served, *, show_body: bool) -> dict[str, Any]:
    """Return the same for scripts; what is not known is null."""
    workspace, sizing, problem = served.wish.workspace, served.sizing, served.problem
    result: dict[str, Any] = {
        "name": workspace.name,
        "namespace": workspace.namespace,
        "source": served.wish.source,
        "model": _model_dict(served.model) if served.model else None,
        "nodes": sizing.nodes if sizing else None,
        "broughtNodes": list(served.taken),
        "instanceTypes": list(sizing.instance_types) if sizing else [],
        "gpusPerNode": sizing.gpus if sizing else None,
        "osDiskGiB": sizing.disk_gib if sizing else None,
        "layout": _layout_dict(sizing.layout) if sizing and sizing.layout else None,
        "sizing": sizing.why if sizing else None,
        "endpoint": services.endpoint(workspace) if sizing and workspace.inference else None,
        "reason": problem.reason if problem else None,
        "message": problem.message if problem else None,
        "notes": list(served.notes),
    }
    if show_body:
        result["nodeClaims"] = list(served.bodies)
    return result


def _model_dict(model: Model) -> dict[str, Any]:
    facts = model.facts
    return {
        "name": facts.name,
        "revision": facts.revision or None,
        "isPreset": model.preset is not None,
        "weightsGiB": round(facts.weights_gib, 2),
        "quantization": facts.quantization or None,
        "maxSequence": facts.context or None,
    }


def _layout_dict(layout: Layout) -> dict[str, Any]:
    return {
        "tensorParallel": layout.tensor,
        "pipelineParallel": layout.pipeline,
        "dataParallel": layout.data,
        "gibPerGpu": round(layout.need.total / memory.GIB, 1),
        "maxSequence": layout.context,
    }
