"""`provisioner plan`: what Workspaces and NodeClaims in files would become. Creates nothing."""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from provisioner.apis import names
from provisioner.apis.agentpool import pool_of_provider_id
from provisioner.azure.connect import connect
from provisioner.commands import output
from provisioner.commands.cluster import Cluster, read_cluster
from provisioner.commands.documents import Documents, Wish, WorkspaceWish, read_files
from provisioner.commands.exits import Trouble
from provisioner.commands.inputs import azure_settings, hub_address
from provisioner.commands.plan_report import plan_document, plan_lines
from provisioner.commands.planning import Situation, make_plan
from provisioner.commands.survey import Survey, Wanted, survey
from provisioner.commands.workspaces import look_up, serve, unknown_models
from provisioner.gpus import catalogue
from provisioner.nodeclaim.holds import holds
from provisioner.nodeclaim.nodeclass import problem, spec_of

# Of Hugging Face's own tools: with it, gated models are found too.
_TOKEN: Final = "HF_TOKEN"  # noqa: S105 -- a variable's name


async def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Plan. Raises ArmFailure where the cluster cannot be read; what else is missing is noted, and done without."""
    documents = read_files(options.files, stdin=sys.stdin)
    _check_names(documents.wishes)
    settings = azure_settings(options, environment)
    hub = hub_address(options, environment)
    wanted = Wanted(pools=True, all_prices=not all(map(_is_in_catalogue, documents.wishes)))
    async with connect(settings) as session:
        found, cluster, models = await asyncio.gather(
            survey(session, prices_at=settings.price_list, wanted=wanted),
            read_cluster(settings.kubeconfig),
            look_up(unknown_models(documents), endpoint=hub, token=environment.get(_TOKEN, "").strip()),
        )
    for note in (*documents.notes, *found.notes, *([cluster.note] if cluster.note else [])):
        output.note(note)
    situation = _situation(found, cluster, documents)
    wishes = [
        serve(
            wish,
            models=models,
            configs=documents.configs,
            brought=cluster.nodes,
            region=found.sizes,
            now=situation.now,
        )
        if isinstance(wish, WorkspaceWish)
        else wish
        for wish in documents.wishes
    ]
    plan = make_plan(wishes, situation=situation)
    if options.output == "table":
        output.write_lines(plan_lines(plan, why=options.why, show_body=options.show_body))
    else:
        document = plan_document(plan, location=found.location, why=options.why, show_body=options.show_body)
        output.write(output.document(document, form=options.output))
    return plan.exit_code


def _check_names(wishes: Sequence[Wish | WorkspaceWish]) -> None:
    counted = Counter(wish.claim.name for wish in wishes if isinstance(wish, Wish) and wish.is_named)
    twice = [name for name, count in counted.items() if count > 1]
    if twice:
        raise Trouble(f"NodeClaim {', '.join(twice)} is there more than once; claims have names of their own.")


def _is_in_catalogue(wish: Wish | WorkspaceWish) -> bool:
    """Tell whether the claim names sizes of the catalogue alone, whose prices are read first."""
    if isinstance(wish, WorkspaceWish):
        asked = wish.workspace.resource.instance_type
        return not asked or catalogue.find(asked) is not None
    named = [
        value
        for requirement in (wish.claim.spec.requirements if wish.claim.spec else ())
        if requirement.key == names.INSTANCE_TYPE_LABEL and requirement.operator == "In"
        for value in requirement.values
    ]
    return all(catalogue.find(name) for name in named)


def _situation(found: Survey, cluster: Cluster, documents: Documents) -> Situation:
    classes = {**cluster.node_classes, **documents.node_classes}
    now = datetime.now(UTC)
    held = holds(
        found.pools,
        asks={},
        size_of=found.sizes.find,
        nodes_of=lambda pool: [node for node in cluster.nodes if pool_of_provider_id(node.provider_id) == pool],
        counted_at=now,
    )
    return Situation(
        sizes=found.sizes,
        location=found.location,
        now=now,
        usages=found.usages or {},
        holds=held,
        pools=found.pools,
        max_pools=found.cluster.max_agent_pools if found.cluster else None,
        class_of=lambda name: spec_of(classes.get(name)),
        # What Kubernetes was not asked for is not missing.
        class_problem_of=lambda name: problem(name, classes.get(name)) if name in classes or not cluster.note else None,
    )
