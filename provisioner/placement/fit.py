"""Whether a VM size does for a claim, however things stand in Azure."""

from datetime import datetime
from typing import Final, NamedTuple

from provisioner.apis import names
from provisioner.placement.ask import Ask
from provisioner.placement.labels import SIZE_KEYS, Label, traits
from provisioner.placement.market import Because
from provisioner.placement.resources import MIN_MEMORY_GIB, MIN_VCPUS, Shortfall
from provisioner.placement.size import Size

_AMD64: Final = "amd64"


class Misfit(NamedTuple):
    """Why a size does not do. `subject` is the label or resource it fails on, `has` what it has of that."""

    because: Because
    message: str
    subject: str = ""
    has: str = ""
    shortfall: Shortfall | None = None


class Fit:
    """Judges sizes by one claim."""

    def __init__(self, ask: Ask, *, now: datetime) -> None:
        self._ask = ask
        self._is_unnamed = ask.named is None
        self._takes_arm = ask.takes_arm
        self._today = now.date().isoformat()
        self._wanted = [(key, values) for key, values in ask.requirements.by_key.items() if key in SIZE_KEYS]
        # Sizes share most of their labels, and a claim is judged against 1,500 of them.
        self._satisfied: dict[tuple[str, Label], bool] = {}

    def misfit(self, size: Size) -> Misfit | None:
        """Return why the size does not do, None where it does."""
        unnamed = self._unnamed_misfit(size) if self._is_unnamed else None
        return unnamed or (self._label_misfit(size) if self._wanted else None) or self._resource_misfit(size)

    def spot_misfit(self, size: Size) -> Misfit:
        """Return that the size is not sold as spot."""
        key = names.CAPACITY_TYPE_LABEL
        message = f"{size.name} is not sold as spot, and {key} {self._ask.requirements.written[key]} is asked for."
        return Misfit(Because.REQUIREMENT, message, subject=key, has=names.CAPACITY_TYPE_ON_DEMAND)

    def _unnamed_misfit(self, size: Size) -> Misfit | None:
        """Judge what a claim that names the size has decided for itself."""
        why = traits(size).only_by_name
        if not why and size.retired and size.retired <= self._today:
            why = f"was retired by Azure on {size.retired}"
        if not why and size.architecture != _AMD64 and not self._takes_arm:
            why = f"is {size.architecture}"
        if why:
            message = f"{size.name} {why}: only for claims that ask for it."
            return Misfit(Because.ONLY_BY_NAME, message, subject=why, has=why)
        if 0 < size.vcpus < MIN_VCPUS or 0 < size.memory_gib < MIN_MEMORY_GIB:
            has = f"{size.vcpus} vCPUs and {size.memory_gib:g} GiB"
            message = f"{size.name} has {has}, and an AKS node needs {MIN_VCPUS} and {MIN_MEMORY_GIB:g} GiB."
            return Misfit(Because.TOO_SMALL, message, has=has)
        return None

    def _label_misfit(self, size: Size) -> Misfit | None:
        labels = traits(size).labels
        for key, values in self._wanted:
            label = labels.get(key)
            if label is None:
                continue
            satisfied = self._satisfied.get((key, label))
            if satisfied is None:
                satisfied = self._satisfied[key, label] = label.satisfies(values)
            if not satisfied:
                return self._unlike(size, key=key, label=label)
        return None

    def _unlike(self, size: Size, *, key: str, label: Label) -> Misfit:
        if key == names.ARCH_LABEL:
            message = f"{size.name} is {label.value}, which {key} excludes."
        else:
            has = f"has {key} {label.value}" if label.spellings else f"has no {key}"
            message = f"{size.name} {has}, and {self._ask.requirements.written[key]} is asked for."
        return Misfit(Because.REQUIREMENT, message, subject=key, has=label.value)

    def _resource_misfit(self, size: Size) -> Misfit | None:
        shortfall = self._ask.requests.shortfall(size)
        if shortfall is None:
            return None
        message = f"{shortfall.asked} {shortfall.resource} requested, {size.name} has {shortfall.has}."
        return Misfit(Because.TOO_SMALL, message, subject=shortfall.resource, has=shortfall.has, shortfall=shortfall)
