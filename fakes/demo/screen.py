"""Shows a person what happens while it happens: a live table on a terminal, a line a change everywhere else."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fakes.demo.snapshot import Claim, Model, Snapshot

_MARKS: Final = {"True": ("yes", "green"), "False": ("no", "red"), "Unknown": ("...", "yellow"), "": ("", "")}
_RECENT_CALLS: Final = 6


def clock_text(seconds: float) -> str:
    """Return simulated seconds as minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Screen:
    """Where the demo shows itself; use as `with`. Times are simulated seconds since the Workspace was written.

    `pods` is what the table of pods is called.
    """

    def __init__(self, *, pods: str) -> None:
        self._console = Console(highlight=False)
        self._pods = pods
        self._live = Live(console=self._console, refresh_per_second=8, transient=True)
        self._history: list[tuple[float, str]] = []

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()

    def settle(self) -> None:
        """Take the table away; what happened stays readable in the scrollback."""
        if self._console.is_terminal:
            self._live.stop()
            for at, line in self._history:
                self._print(at, line)
            self._history.clear()

    def say(self, text: str) -> None:
        """Print a line beside the table."""
        self._console.print(text, soft_wrap=True, markup=False)

    def show(
        self, snapshot: Snapshot, *, at: float, speed: float, changes: Iterable[str], calls: Sequence[str]
    ) -> None:
        """Bring the table up to date, and tell of the changes where there is no table.

        `speed` is how many simulated seconds are a real one from now on.
        """
        for change in changes:
            self._history.append((at, change))
            if not self._console.is_terminal:
                self._print(at, change)
        if self._console.is_terminal:
            self._live.start()
            self._live.update(self._tables(snapshot, at=at, speed=speed, calls=calls))

    def _print(self, at: float, line: str) -> None:
        self._console.print(Text(f"  {clock_text(at):>6}  {line}"), soft_wrap=True)

    def _tables(self, snapshot: Snapshot, *, at: float, speed: float, calls: Sequence[str]) -> RenderableType:
        title = f"simulated time {clock_text(at)} ({speed:g} times as fast as real)"
        workspaces = _table("Workspaces", "name", "claims", "nodes", "inference", "ready", "waits for", "endpoint")
        for workspace in snapshot.workspaces.values():
            workspaces.add_row(*_workspace_row(workspace))
        claims = _table("NodeClaims", "name", "launched", "registered", "initialized", "ready", "waits for")
        for claim in snapshot.claims.values():
            claims.add_row(claim.name, *map(_mark, claim.stages.values()), _waits_for(claim))
        pools = _table("AKS agent pools", "name", "VM size", "provisioningState")
        for pool in snapshot.pools.values():
            pools.add_row(pool.name, pool.size, pool.state)
        nodes = _table("Nodes", "name", "agent pool", "status", "GPUs")
        for node in snapshot.nodes.values():
            nodes.add_row(node.name, node.pool, node.ready, node.gpus)
        pods = _table(self._pods, "name", "node", "status")
        for pod in snapshot.pods.values():
            pods.add_row(pod.name, pod.node, pod.state)
        counts = Counter(calls)
        arm = _table("ARM calls of the controllers", "call", "times")
        for call, number in counts.most_common(_RECENT_CALLS):
            arm.add_row(call, str(number))
        return Group(Text(title, style="bold"), workspaces, claims, pools, nodes, pods, arm)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", expand=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _mark(status: str) -> Text:
    text, style = _MARKS.get(status, (status, ""))
    return Text(text, style=style)


def _workspace_row(workspace: Model) -> list[str | Text]:
    shown = ("NodeClaimReady", "NodesReady", "InferenceReady", "WorkspaceSucceeded")
    waits = "its claims, pools and Nodes to go" if workspace.deleting else workspace.reason
    # Where nothing answers yet is of no use to anybody.
    endpoint = workspace.endpoint if workspace.conditions["WorkspaceSucceeded"] == "True" else ""
    return [workspace.name, *(_mark(workspace.conditions[kind]) for kind in shown), waits, endpoint]


def _waits_for(claim: Claim) -> Text:
    if claim.deleting:
        return Text("its agent pool and Node to go", style="yellow")
    return Text(f"{claim.reason}: {claim.message}" if claim.reason else "", style="dim")
