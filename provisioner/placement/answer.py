"""What is said of a claim that gets no offer: one failure or one refusal, however many sizes were looked at.

Clients show the first 256 bytes of a message, so those have to say all that matters.
"""

import difflib
import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from provisioner.apis import names
from provisioner.apis.failure import Failure, FailureClass
from provisioner.placement.ask import Ask, shown_name
from provisioner.placement.fit import Misfit
from provisioner.placement.market import Because, LeftOut, Refusal
from provisioner.placement.refused import NO_FITTING_SIZE
from provisioner.placement.requirements import clipped, enumerated
from provisioner.placement.size import Sizes

# KAITO ends its wait for a node on this sentence, which Karpenter's cloud providers answer with.
UNAVAILABLE: Final = "all requested instance types were unavailable during launch"
_SHOWN_BYTES: Final = 256
# Of the first failure, where others are to be mentioned too.
_FIRST_OF_SEVERAL: Final = 150
_FIRST_ALONE: Final = _SHOWN_BYTES - len(f"; {UNAVAILABLE}")
# A sentence that is shorter says too little to stand for all.
_SENTENCE: Final = 40

_IN_SHORT: Final = {
    FailureClass.QUOTA: "quota",
    FailureClass.SKU_RESTRICTED: "not offered to this subscription",
    FailureClass.CAPACITY: "no capacity",
    FailureClass.ZONE: "not in the zone",
}
_GPU_EXAMPLE: Final = "Standard_NC24ads_A100_v4"
_CPU_EXAMPLE: Final = "Standard_D4s_v5"
_SUGGESTIONS: Final = 3
_MESSAGES: Final = 3
_GROUPS: Final = 3
_ANEW: Final = "Write a new claim: a spec cannot be changed."
_ANEW_OR_CLASS: Final = "Write a new claim, or change the class."


def unavailable(left_out: Sequence[LeftOut]) -> Failure:
    """Return the failure for sizes that would all do and cannot be had, the most preferable one first."""
    failures = [(entry, entry.failure) for entry in left_out if entry.failure is not None]
    first, failure = failures[0]
    sizes = len({entry.size for entry, _ in failures})
    head, rest = _cut(failure.message, limit=_FIRST_OF_SEVERAL if len(failures) > 1 else _FIRST_ALONE)
    tried = f"{sizes} VM size{'s' if sizes > 1 else ''} tried"
    following = next(((e, f) for e, f in failures[1:] if (e.size, f.kind) != (first.size, failure.kind)), None)
    if following is not None:
        entry, other = following
        spot = f" as {entry.capacity_type}" if entry.size == first.size else ""
        tried += f"; next: {entry.size}{spot}, {_IN_SHORT.get(other.kind, other.kind.value)}"
    if (again := min((entry.until for entry, _ in failures if entry.until is not None), default=None)) is not None:
        tried += f"; again at {again:%Y-%m-%d %H:%M} UTC"
    return Failure(
        kind=failure.kind,
        message=f"{head}; {UNAVAILABLE} ({tried}).{rest}",
        code=failure.code,
        retry_after=failure.retry_after,
        shortage=failure.shortage,
        zones=failure.zones,
    )


def no_size(ask: Ask) -> Refusal:
    """Return the refusal of a claim that leaves us the choice where there is nothing to choose from."""
    kind, example = ("with a GPU", _GPU_EXAMPLE) if ask.accelerated else ("without a GPU", _CPU_EXAMPLE)
    return Refusal(
        reason="NoInstanceType",
        message=f"No VM size {kind} is known in this region: add a requirement "
        f"{names.INSTANCE_TYPE_LABEL} In [{example}] or another size.",
    )


def unknown(ask: Ask, *, sizes: Sizes) -> Refusal:
    """Return the refusal of a claim that names sizes which the region does not have."""
    named = ask.named or ()
    known = tuple(sorted(size.name for size in sizes.all()))
    near = [name for candidate in named[:_SUGGESTIONS] for name in _nearest(clipped(candidate), known)]
    hint = f" Did you mean {' or '.join(dict.fromkeys(near))}?" if near else " `az vm list-skus` lists what there is."
    written = enumerated(shown_name(ask.written.get(name, name)) for name in named)
    return Refusal(reason="UnknownInstanceType", message=f"{written}: no VM size of that name in this region.{hint}")


# Comparing one name with all takes milliseconds, and a claim that waits is looked at again and again.
@functools.lru_cache(maxsize=256)
def _nearest(name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    spelled = {size.lower(): size for size in known}
    return tuple(spelled[match] for match in difflib.get_close_matches(name, spelled, n=_SUGGESTIONS, cutoff=0.7))


def unfit(ask: Ask, misfits: Sequence[tuple[str, Misfit]]) -> Refusal:
    """Return the refusal of a claim that no size does for. `misfits` are the sizes and what is wrong with each."""
    by_class = any(misfit.because is Because.NODE_CLASS for _, misfit in misfits)
    anew = _ANEW_OR_CLASS if by_class else _ANEW
    if ask.named is None:
        kind = "with a GPU" if ask.accelerated else "without a GPU"
        found = "; ".join(_groups(ask, misfits))
        return Refusal(reason=NO_FITTING_SIZE, message=f"None of {len(misfits)} VM sizes {kind} does: {found}. {anew}")
    messages = [misfit.message.removesuffix(".") for _, misfit in misfits]
    more = len(messages) - _MESSAGES
    text = "; ".join(messages[:_MESSAGES]) + (f"; and {more} more" if more > 0 else "")
    if all(misfit.because is Because.REQUIREMENT for _, misfit in misfits):
        return Refusal(reason="ContradictoryRequirements", message=f"{text}.")
    return Refusal(reason=NO_FITTING_SIZE, message=f"{text}. {anew}")


def _groups(ask: Ask, misfits: Iterable[tuple[str, Misfit]]) -> list[str]:
    """Return in a few words each what the sizes fail on, those that come closest first.

    Resources are judged after labels, so what lacks resources alone has all the labels.
    """
    groups: dict[tuple[Because, str], list[tuple[str, Misfit]]] = defaultdict(list)
    for size, misfit in misfits:
        groups[misfit.because, misfit.subject].append((size, misfit))
    closest = (Because.NODE_CLASS, Because.TOO_SMALL, Because.REQUIREMENT, Because.ONLY_BY_NAME)
    ordered = sorted(groups.items(), key=lambda item: (closest.index(item[0][0]), -len(item[1]), item[0][1]))
    return [_group(ask, members) for _, members in ordered[:_GROUPS]]


def _group(ask: Ask, members: Sequence[tuple[str, Misfit]]) -> str:
    size, misfit = members[0]
    count = f"{len(members)} size{'s' if len(members) > 1 else ''}"
    shortfalls = [(size, misfit.shortfall) for size, misfit in members if misfit.shortfall is not None]
    if shortfalls:
        size, most = max(shortfalls, key=lambda item: (item[1].amount, item[0]))
        return f"{most.asked} {most.resource} requested, the most is {most.has} ({size}; {count})"
    if misfit.because is Because.REQUIREMENT:
        values = sorted({misfit.has or "none" for _, misfit in members}, key=_natural)
        written = ask.requirements.written[misfit.subject]
        return f"{misfit.subject} {written} asked for, there is {enumerated(values)} ({count})"
    return f"{size} {misfit.has} ({count} of that kind)"


def _natural(value: str) -> tuple[int, str]:
    return (len(value), value) if value.isdecimal() else (0, value)


def _cut(message: str, *, limit: int) -> tuple[str, str]:
    """Return the beginning of a message in at most `limit` bytes, without its full stop, and the rest of it."""
    encoded = message.encode()
    if len(encoded) <= limit:
        return message.removesuffix("."), ""
    shown = encoded[: limit - len("...")].decode(errors="ignore")
    end = shown.rfind(". ")
    if end >= _SENTENCE:
        return shown[:end], f" {message[end + 2 :]}"
    end = shown.rfind(" ") if " " in shown[_SENTENCE:] else len(shown)
    return f"{shown[:end]}...", f" ...{message[end:].lstrip()}"
