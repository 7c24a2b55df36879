"""`provisioner status`: every claim of ours, and what it waits for. Asks Kubernetes alone, and a public price list."""

import argparse
import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from provisioner.apis.nodeclaim import NodeClaim, parse_nodeclaim
from provisioner.commands import output
from provisioner.commands.claim_prices import ClaimPrices
from provisioner.commands.claims_table import (
    GONE,
    change_lines,
    changes,
    claim_lines,
    claims_document,
    gone,
    header_line,
)
from provisioner.commands.exits import Exit, Trouble
from provisioner.commands.inputs import kubernetes_settings
from provisioner.commands.phases import ClaimStatus, Phase, claim_status
from provisioner.commands.text import clean, cut
from provisioner.kube.gateway import Gone, KubeError, KubeGateway

# Seconds between two looks with -w: one LIST, as `kubectl get` makes it.
_PACE: Final = 2.0
_PATIENCE: Final = 10.0
_NO_CRD: Final = "The cluster serves no NodeClaims: install them with `kubectl apply --server-side -f crds/`."

_HOME: Final = "\x1b[H"
_ERASE_LINE: Final = "\x1b[K"
_ERASE_BELOW: Final = "\x1b[J"


async def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Show the claims, once or until Ctrl-C. Raises KubeError where the first look fails."""
    settings = kubernetes_settings(options, environment)
    if settings.kubeconfig:
        os.environ["KUBECONFIG"] = settings.kubeconfig
    async with KubeGateway(request_timeout=_PATIENCE) as kube:
        look = _Look(kube, wanted=options.names, prices=ClaimPrices(endpoint=settings.price_list))
        try:
            claims = await look()
        except Gone as error:
            raise Trouble(_NO_CRD, code=Exit.FAILED) from error
        if options.watch:
            show = _Screen(options) if options.output == "table" and output.is_terminal() else _Stream(options)
            await _watch(look, claims, show=show)
        return _once(claims, options)


class _Look:
    """One look at the claims, with their prices."""

    def __init__(self, kube: KubeGateway, *, wanted: Sequence[str], prices: ClaimPrices) -> None:
        self._kube = kube
        self._wanted = frozenset(wanted)
        self._prices = prices

    async def __call__(self) -> list[ClaimStatus]:
        """Return the claims by name. Raises KubeError."""
        raws, _ = await self._kube.list_claims()
        claims = [claim for claim in map(parse_nodeclaim, raws) if claim.is_managed and self._is_wanted(claim)]
        await self._prices.learn(claims)
        statuses = (claim_status(claim) for claim in sorted(claims, key=lambda claim: claim.name))
        return [replace(status, price=self._prices.of(status)) for status in statuses]

    def _is_wanted(self, claim: NodeClaim) -> bool:
        return not self._wanted or claim.name in self._wanted


def _once(claims: Sequence[ClaimStatus], options: argparse.Namespace) -> int:
    missing = [name for name in options.names if name not in {claim.name for claim in claims}]
    if missing:
        raise Trouble(
            f"There is no NodeClaim {' or '.join(missing)} of this provisioner; `provisioner status` lists all.",
            code=Exit.FAILED,
        )
    if options.output == "table":
        output.write_lines(claim_lines(claims, now=_now(), width=output.width(), wide=options.wide))
    else:
        output.write(output.document(claims_document(claims), form=options.output))
    unready = options.exit_code and any(claim.phase is not Phase.READY for claim in claims)
    return Exit.NOT_NOW if unready else Exit.DONE


class _Screen:
    """The table, drawn over itself."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._wide = options.wide
        output.write(_HOME + _ERASE_BELOW)

    def __call__(self, claims: Sequence[ClaimStatus], trouble: str) -> None:
        width, height = output.width() or 80, output.height()
        lines = claim_lines(claims, now=_now(), width=width, wide=self._wide)
        # A line that wraps would take the room of the next one, and the screen would scroll.
        foot = [trouble] if trouble else []
        room = max(height - 1 - len(foot), 4)
        if len(lines) > room:
            hidden = len(lines) - room + 1
            lines = [*lines[: room - 3], f"... and {hidden - 2} more", *lines[-2:]]
        drawn = "".join(f"{cut(line, width)}{_ERASE_LINE}\n" for line in (*lines, *foot))
        output.write(_HOME + drawn + _ERASE_BELOW)


class _Stream:
    """A line, or a document, for each change: for pipes and files."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._form = options.output
        self._wide = options.wide
        self._before: dict[str, ClaimStatus] = {}
        self._trouble = ""
        if self._form == "table":
            output.write_lines([header_line()])

    def __call__(self, claims: Sequence[ClaimStatus], trouble: str) -> None:
        if trouble and trouble != self._trouble:
            output.note(trouble)
        self._trouble = trouble
        if self._form == "table":
            output.write_lines(change_lines(self._before, claims, now=_now(), wide=self._wide))
        else:
            documents = [claim.to_dict() for claim in changes(self._before, claims)]
            documents += [claim.to_dict() | {"phase": GONE} for claim in gone(self._before, claims, now=_now())]
            for document in documents:
                if self._form == "json":
                    output.write(json.dumps(document) + "\n")
                else:
                    output.write("---\n" + output.document(document, form="yaml"))
        self._before = {claim.name: claim for claim in claims}


async def _watch(look: _Look, claims: list[ClaimStatus], *, show: Callable[[Sequence[ClaimStatus], str], None]) -> None:
    """Show the claims again and again until cancelled; an API server that is away for a while is waited for."""
    trouble = ""
    while True:
        show(claims, trouble)
        await asyncio.sleep(_PACE)
        try:
            claims, trouble = await look(), ""
        except KubeError as error:
            trouble = clean(f"Not up to date: {error}")


def _now() -> datetime:
    return datetime.now(UTC)
