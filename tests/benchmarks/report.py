"""From figures to markdown: ours beside the peer's, and what we have set ourselves."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.benchmarks import peer
from tests.benchmarks.cells import Impatient, Killed, Lifecycle, Outage, Quota, Shape
from tests.benchmarks.measure import Usage, percentile, spread, tail

Figures = Lifecycle | Quota | Killed | Impatient | Outage
_Row = tuple[str, ...]

_NOTHING: Final = "-"
_MANY: Final = 1000
_LONG: Final = 300.0


def report(found: Sequence[Figures]) -> Iterator[str]:
    """Return the lines of all tables that there are figures for."""
    lives = [figures for figures in found if isinstance(figures, Lifecycle)]
    if lives:
        yield from _section("Creation", "min / median / max of simulated seconds since the claim's POST")
        yield from _table(
            ("claims", "launched", "registered", "ready", "peer: ready", "ARM calls a claim", "peer: ARM"),
            map(_creation, lives),
        )
        yield from _section("What the controller takes", "median / p99 / max of real seconds")
        yield from _table(
            ("claims", "Node joined to Registered", "GPUs registered to Ready", "DELETE of claim to DELETE sent"),
            [*map(_own_seconds, lives), ("peer", peer.JOINED_TO_REGISTERED, peer.GPUS_TO_READY, "max 0.16")],
        )
        yield from _section("Deletion", "min / median / max of simulated seconds since the claim's DELETE")
        yield from _table(
            ("claims", "gone", "peer: gone", "ARM calls a claim", "peer: ARM", "requests a claim", "peer: requests"),
            map(_deletion, lives),
        )
        yield from _section("Cost of creation", "CPU of the controller in all, and its requests to Kubernetes")
        yield from _table(
            ("claims", "CPU, s", "peer: CPU", "peak RSS, MiB", "peer: RSS", "requests a claim", "peer: requests"),
            map(_cost, lives),
        )
        most = max(lives, key=lambda life: life.shape.claims)
        yield from _section("Kubernetes requests by kind", f"a claim, of {most.shape.claims} claims")
        yield from _table(("request", "create", "delete"), _by_kind(most))
    yield from _at_rest([life for life in lives if life.rest is not None])
    yield from _mishaps(found)
    yield from _targets(found)


def _name(shape: Shape) -> str:
    after = f"Retry-After {shape.retry_after:g}" if shape.retry_after is not None else "no Retry-After"
    speed = f", x{shape.scale:g}" if shape.scale != 1.0 else ""
    return f"{shape.claims:,} x {shape.operation:g} s, {after}{speed}"


def _peer_of(shape: Shape) -> peer.Peer:
    return peer.SHAPES.get((shape.claims, shape.operation, shape.retry_after), peer.Peer())


def _creation(life: Lifecycle) -> _Row:
    other = _peer_of(life.shape)
    return (
        _name(life.shape),
        spread(life.launched),
        spread(life.registered),
        spread(life.ready),
        other.ready,
        _arm(life.created, life.shape.claims),
        other.arm_create,
    )


def _own_seconds(life: Lifecycle) -> _Row:
    return (
        _name(life.shape),
        tail(life.joined_to_registered),
        tail(life.gpus_to_ready),
        tail(life.delete_sent),
    )


def _deletion(life: Lifecycle) -> _Row:
    other, claims = _peer_of(life.shape), life.shape.deletes
    of_all = "" if claims == life.shape.claims else f"{claims} of "
    return (
        f"{of_all}{_name(life.shape)}",
        spread(life.gone),
        other.gone,
        _arm(life.deleted, claims),
        other.arm_delete,
        f"{life.deleted.kube.total() / claims:.2f}",
        peer.KUBE_DELETE,
    )


def _cost(life: Lifecycle) -> _Row:
    other, claims = _peer_of(life.shape), life.shape.claims
    return (
        _name(life.shape),
        f"{life.created.cpu:.2f}",
        other.cpu,
        f"{life.peak_rss:.0f}",
        other.peak_rss,
        f"{life.created.kube.total() / claims:.2f}",
        other.kube_create or peer.KUBE_CREATE,
    )


def _arm(usage: Usage, claims: int) -> str:
    kinds = ", ".join(f"{number} {call}" for call, number in sorted(usage.arm.items()))
    return f"{usage.arm.total() / claims:.2f} ({kinds})"


def _by_kind(life: Lifecycle) -> Iterator[_Row]:
    created, deleted, shape = life.created.kube, life.deleted.kube, life.shape
    for call in sorted(created | deleted):
        yield call, f"{created[call] / shape.claims:.2f}", f"{deleted[call] / shape.deletes:.2f}"


def _at_rest(lives: Sequence[Lifecycle]) -> Iterator[str]:
    if not lives:
        return
    yield from _section("At rest, and after a restart", "seconds are real ones")
    rows = []
    for life in lives:
        if (rest := life.rest) is None:
            continue
        minutes, ready = rest.seconds / 60, f"{life.shape.claims:,} Ready claims"
        rows += [
            (f"{ready}: CPU, % of a core", f"{100 * rest.used.cpu / rest.seconds:.2f}", peer.IDLE),
            (f"{ready}: RSS, MiB", f"{rest.rss:.0f}", peer.IDLE_RSS),
            (f"{ready}: ARM calls a minute", f"{rest.used.arm.total() / minutes:.1f}", peer.IDLE_LISTS),
            (f"{ready}: Kubernetes requests a minute", f"{rest.used.kube.total() / minutes:.1f}", peer.IDLE_KUBE),
            (f"{ready}, restart: /readyz after, s", f"{rest.readyz:.2f}", peer.RESTART_READYZ),
            (f"{ready}, restart: at rest after, s", f"{rest.steady:.2f}", ""),
            (f"{ready}, restart: Kubernetes requests", f"{rest.restarted.kube.total()}", peer.RESTART_KUBE),
            (f"{ready}, restart: ARM calls", f"{rest.restarted.arm.total()}", peer.RESTART_ARM),
            (f"{ready}, restart: RSS, MiB", f"{rest.restarted_rss:.0f}", ""),
        ]
    yield from _table(("what", "ours", "peer"), rows)


def _mishaps(found: Sequence[Figures]) -> Iterator[str]:
    rows = [row for figures in found for row in _mishap(figures)]
    if rows:
        yield from _section("Mishaps", "all in real time")
        yield from _table(("what", "ours", "peer"), rows)


def _mishap(figures: Figures) -> Iterator[_Row]:
    match figures:
        case Quota():
            about = f"{figures.claims} claims, {figures.seconds:g} s of refused quota"
            yield f"{about} that usages show: PUTs", f"{figures.puts_where_shown}", peer.PUTS_UNDER_QUOTA
            yield f"{about} that usages do not show: PUTs", f"{figures.puts_where_hidden}", peer.PUTS_UNDER_QUOTA
            yield f"{about}: reads of usages", f"{figures.usages_read}", "0"
            yield f"{about}: claim says why after, s", spread(figures.told), peer.TOLD_OF_QUOTA
        case Killed():
            about = f"kill -9 10 s after the PUT, operation of {figures.operation:g} s"
            yield f"{about}: further PUTs", f"{figures.puts_after}", peer.PUTS_AFTER_KILL
            yield f"{about}: Ready after the restart, s", f"{figures.ready_after_restart:.1f}", peer.READY_AFTER_RESTART
            yield f"{about}: Ready after the Node, s", f"{figures.ready_after_node:.1f}", peer.READY_AFTER_NODE
            yield f"{about}: Ready after the GPUs, s", f"{figures.ready_after_gpus:.1f}", ""
        case Impatient():
            about = f"deleted 10 s after its creation, operation of {figures.operation:g} s"
            ready = "; turns Ready meanwhile" if figures.was_ready else ""
            yield f"{about}: DELETE sent after, s", f"{figures.delete_sent:.2f}{ready}", peer.DELETE_WHILE_CREATING
        case Outage():
            yield "ARM answers 500: claim says so after, s", f"{figures.told:.2f}", peer.TOLD_OF_OUTAGE


@dataclass(frozen=True, kw_only=True)
class _Target:
    what: str
    limit: float
    measured: float


def _targets(found: Sequence[Figures]) -> Iterator[str]:
    rows = [
        (target.what, f"{target.limit:g}", f"{target.measured:.2f}", "yes" if target.measured <= target.limit else "no")
        for figures in found
        for target in _targets_of(figures)
    ]
    if rows:
        yield from _section("Targets", "what we have set ourselves")
        yield from _table(("what", "at most", "measured", "met"), rows)


def _targets_of(figures: Figures) -> Iterator[_Target]:
    match figures:
        case Lifecycle(shape=shape):
            yield from _targets_of_life(figures, claims=shape.claims, about=_name(shape))
        case Killed():
            yield _Target(what="PUTs after kill -9", limit=0, measured=figures.puts_after)
            yield _Target(
                what="after kill -9: Node joined to Ready, s, of which 2 are the GPUs'",
                limit=3,
                measured=figures.ready_after_node,
            )
        case Impatient():
            yield _Target(what="deleted while Azure creates: DELETE sent, s", limit=1, measured=figures.delete_sent)
        case _:
            return


def _targets_of_life(life: Lifecycle, *, claims: int, about: str) -> Iterator[_Target]:
    if life.shape.operation >= _LONG:
        yield _Target(
            what=f"{about}: ARM calls a claim to create", limit=1.5, measured=life.created.arm.total() / claims
        )
    if claims >= _MANY:
        for what, seconds in (
            ("Node joined to Registered, s, p99", life.joined_to_registered),
            ("GPUs registered to Ready, s, p99", life.gpus_to_ready),
            ("DELETE of the claim to DELETE sent, s, p99", life.delete_sent),
        ):
            yield _Target(what=f"{about}: {what}", limit=1, measured=percentile(seconds, 99))
    if claims > 1:
        yield _Target(
            what=f"{about}: Kubernetes requests a claim to create",
            limit=8,
            measured=life.created.kube.total() / claims,
        )
        yield _Target(
            what=f"{about}: Kubernetes requests a claim to delete",
            limit=4,
            measured=life.deleted.kube.total() / life.shape.deletes,
        )
    if (rest := life.rest) is not None:
        yield _Target(what=f"{about}, idle: RSS, MiB", limit=120, measured=rest.rss)
        yield _Target(what=f"{about}, idle: CPU, % of a core", limit=1, measured=100 * rest.used.cpu / rest.seconds)
        yield _Target(what=f"{about}, restart: at rest after, s", limit=10, measured=rest.steady)


def _section(title: str, note: str) -> tuple[str, ...]:
    return f"### {title}", "", f"{note[0].upper()}{note[1:]}.", ""


def _table(heading: _Row, rows: Iterable[_Row]) -> Iterator[str]:
    yield _line(heading)
    yield _line("---" for _ in heading)
    yield from map(_line, rows)
    yield ""


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell or _NOTHING for cell in cells)} |"
