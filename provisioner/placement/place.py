"""From what a claim asks for to the ordered list of what to ask Azure for, with a reason for all that is not in it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

from provisioner.apis import names
from provisioner.apis.nodeclaim import NodeClaimSpec
from provisioner.placement import answer
from provisioner.placement.ask import Ask, read_ask, shown_name
from provisioner.placement.availability import Available, look
from provisioner.placement.fit import Fit, Misfit
from provisioner.placement.labels import FOLDS, NODE_KEYS, traits
from provisioner.placement.market import REGIONAL_ZONE, Because, LeftOut, Market, Offer, Placement
from provisioner.placement.order import Rank, rank
from provisioner.placement.refused import MIN_VALUES, Refused
from provisioner.placement.requirements import enumerated
from provisioner.placement.size import Size
from provisioner.placement.terms import misfit as terms_misfit
from provisioner.placement.terms import partitioned, price_misfit, reserved_zones, unpartitioned

# What a name has to be for Azure to judge it where its list could not be read.
_SIZE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)
_EVERY_NODE: Final = (names.INSTANCE_TYPE_LABEL, names.CAPACITY_TYPE_LABEL, names.ARCH_LABEL)


class _Candidate(NamedTuple):
    """A size to look at, where the claim lists it, and how it is spelled there."""

    size: Size
    position: int = 0
    spelling: str = ""


def place(spec: NodeClaimSpec, *, market: Market) -> Placement:
    """Return what to ask Azure for on behalf of a claim, best first, and why everything else is left out.

    Sizes that a claim names are looked at and no others. A claim that names none is given one with a GPU only where
    it asks for one, and never one without where it does; `left_out` then has the sizes of that half alone.
    """
    try:
        ask = read_ask(spec, location=market.location, terms=market.terms)
    except Refused as error:
        return Placement(refusal=error.refusal)
    return _Round(ask, market).placement()


class _Round:
    """One look at all sizes on behalf of one claim."""

    def __init__(self, ask: Ask, market: Market) -> None:
        self._ask = ask
        self._market = market
        self._fit = Fit(ask, now=market.now)
        self._labels = _OfferLabels(ask)
        self._offers: list[tuple[Rank, Offer]] = []
        self._waiting: list[tuple[Rank, LeftOut]] = []
        self._unknown: list[LeftOut] = []
        self._misfits: list[tuple[str, Misfit]] = []
        self._unfit: list[LeftOut] = []

    def placement(self) -> Placement:
        for candidate in self._candidates():
            self._judge(candidate)
        offers = tuple(offer for _, offer in sorted(self._offers, key=_first))
        waiting = [entry for _, entry in sorted(self._waiting, key=_first)]
        left_out = (*waiting, *self._unfit, *self._unknown)
        if offers:
            return _with_choice(Placement(offers=offers, left_out=left_out), ask=self._ask, market=self._market)
        if waiting:
            again_at = min((entry.until for entry in waiting if entry.until is not None), default=None)
            return Placement(left_out=left_out, unavailable=answer.unavailable(waiting), again_at=again_at)
        if self._misfits:
            return Placement(left_out=left_out, refusal=answer.unfit(self._ask, self._misfits))
        if self._unknown:
            return Placement(left_out=left_out, refusal=answer.unknown(self._ask, sizes=self._market.sizes))
        return Placement(refusal=answer.no_size(self._ask))

    def _candidates(self) -> Iterator[_Candidate]:
        sizes, ask = self._market.sizes, self._ask
        if ask.named is None:
            yield from (_Candidate(size) for size in sizes.all() if traits(size).accelerated == ask.accelerated)
            return
        are_complete, listed = sizes.are_complete, self._market.preference == "Listed"
        for position, name in enumerate(ask.named):
            spelling = ask.written.get(name, name)
            size = sizes.find(name)
            if size is None and (are_complete or not _SIZE_NAME.fullmatch(spelling)):
                self._unknown.append(_unknown(spelling))
                continue
            # Where Azure's list could not be read it is Azure that knows: let it decide.
            size = size or Size(name=spelling, architecture=ask.architecture)
            yield _Candidate(size, position if listed else 0, spelling)

    def _judge(self, candidate: _Candidate) -> None:
        terms = self._market.terms
        size = partitioned(candidate.size, terms.gpu_instance_profile)
        if size is None:
            self._leave_out(candidate.size, unpartitioned(candidate.size, terms=terms))
            return
        candidate = candidate._replace(size=size)
        misfit = self._fit.misfit(size) or terms_misfit(size, terms=terms, os_disk_gib=self._ask.requests.os_disk_gib)
        if misfit is not None:
            self._leave_out(size, misfit)
            return
        for capacity_type in self._ask.capacity_types:
            if capacity_type == names.CAPACITY_TYPE_SPOT and not size.sells_spot:
                self._leave_out(size, self._fit.spot_misfit(size), capacity_type=capacity_type)
                continue
            if (misfit := price_misfit(size, capacity_type=capacity_type, terms=terms)) is not None:
                self._leave_out(size, misfit, capacity_type=capacity_type)
                continue
            zones = reserved_zones(size, capacity_type=capacity_type, zones=self._ask.zones, terms=terms)
            if isinstance(zones, Misfit):
                self._leave_out(size, zones, capacity_type=capacity_type)
                continue
            found = look(size, capacity_type=capacity_type, zones=zones, market=self._market)
            ranked = rank(
                size,
                capacity_type=capacity_type,
                position=candidate.position,
                gpus=self._ask.requests.gpu_count,
                failed_lately=isinstance(found, Available) and found.failed_lately,
            )
            if isinstance(found, LeftOut):
                self._waiting.append((ranked, found))
            else:
                self._offers.append((ranked, self._offer(candidate, capacity_type, found)))

    def _leave_out(self, size: Size, misfit: Misfit, *, capacity_type: str = "") -> None:
        self._misfits.append((size.name, misfit))
        self._unfit.append(
            LeftOut(size=size.name, because=misfit.because, message=misfit.message, capacity_type=capacity_type)
        )

    def _offer(self, candidate: _Candidate, capacity_type: str, found: Available) -> Offer:
        size, zones = candidate.size, found.zones
        label = zones[0].label if len(zones) == 1 else ""
        return Offer(
            size=size,
            capacity_type=capacity_type,
            zones=tuple(zone.number for zone in zones),
            zone_label=label if zones else REGIONAL_ZONE,
            os_disk_gib=self._ask.requests.os_disk_gib,
            price=size.spot_price if capacity_type == names.CAPACITY_TYPE_SPOT else size.price,
            labels=self._labels.of(size, capacity_type=capacity_type),
            notes=_notes(size, spelling=candidate.spelling, now=self._market.now),
        )


class _OfferLabels:
    """The labels that a Node has for a claim's requirements."""

    def __init__(self, ask: Ask) -> None:
        # What is folded is in lower case, for comparison; the size has it as it is spelled.
        given = {key: value for key, value in ask.requirements.single_values.items() if key not in FOLDS}
        self._mentioned = [key for key in ask.requirements.by_key if key in NODE_KEYS]
        # The same keys in the same order for all sizes.
        self._common = given | dict.fromkeys(_EVERY_NODE, "") | {names.OS_LABEL: "linux"}
        self._common = dict(sorted(self._common.items()))

    def of(self, size: Size, *, capacity_type: str) -> tuple[tuple[str, str], ...]:
        found = self._common.copy()
        found[names.INSTANCE_TYPE_LABEL] = size.name
        found[names.CAPACITY_TYPE_LABEL] = capacity_type
        found[names.ARCH_LABEL] = size.architecture
        if not self._mentioned:
            return tuple(found.items())
        labels = traits(size).labels
        for key in self._mentioned:
            if (label := labels.get(key)) is not None and label.spellings:
                found[key] = label.value
        return tuple(sorted(found.items()))


def _first(item: tuple[Rank, object]) -> Rank:
    return item[0]


def _unknown(spelling: str) -> LeftOut:
    name = shown_name(spelling)
    return LeftOut(size=spelling, because=Because.UNKNOWN, message=f"{name}: no VM size of that name in this region.")


def _notes(size: Size, *, spelling: str, now: datetime) -> tuple[str, ...]:
    notes = []
    if spelling and spelling != size.name:
        notes.append(f"{spelling} is spelled {size.name} by Azure, and so by the Node's {names.INSTANCE_TYPE_LABEL}.")
    if size.retired:
        gone = size.retired <= now.date().isoformat()
        told = f"was retired by Azure on {size.retired}; it may refuse to create it."
        instead = f" Nearest sizes that stay: {', '.join(size.successors)}." if size.successors else ""
        notes.append(f"{size.name} {told if gone else f'will be retired by Azure on {size.retired}.'}{instead}")
    return tuple(notes)


def _with_choice(placement: Placement, *, ask: Ask, market: Market) -> Placement:
    """Return the placement, refused where the claim wants a choice of more values (`minValues`) than there are."""
    for key, wanted in sorted(ask.requirements.min_values.items()):
        found = sorted(_values(placement.offers, key=key, ask=ask, market=market))
        if len(found) < wanted:
            there = f": {enumerated(found)}" if found else ""
            waiting = sum(entry.because.may_pass for entry in placement.left_out)
            more = f" {waiting} offers that would do cannot be had now." if waiting else ""
            message = f"{key} wants a choice of {wanted} values (minValues), {len(found)} found{there}.{more}"
            refusal = Refused(reason=MIN_VALUES, message=message).refusal
            return replace(placement, offers=(), refusal=refusal)
    return placement


def _values(offers: Sequence[Offer], *, key: str, ask: Ask, market: Market) -> set[str]:
    if key == names.ZONE_LABEL:
        labels = {zone.number: zone.label for zone in ask.zones}
        return {labels.get(number, number) for offer in offers for number in offer.zones or (REGIONAL_ZONE,)}
    if key == names.REGION_LABEL and market.location:
        return {market.location}
    return {value for value in (_value(offer, key=key) for offer in offers) if value is not None}


def _value(offer: Offer, *, key: str) -> str | None:
    label = traits(offer.size).labels.get(key)
    if label is not None:
        return label.value if label.spellings else None
    return dict(offer.labels).get(key)
