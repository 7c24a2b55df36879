"""What seldom happens of itself, made to happen every time: somebody acts between two steps of the controller."""

from collections.abc import Mapping
from typing import Any, Final

from provisioner.kube.transport import Requests
from tests.chaos.flaws import Kube
from tests.chaos.objects import NODES, Raw, place_of
from tests.chaos.program import Flaw

# Of patches that change the finalizers, or fail where anybody has written meanwhile.
_LOCKS: Final = frozenset({"resourceVersion", "finalizers"})


class _Deleted(Kube):
    """Somebody deletes a Node after the controller has looked at it and before it writes to it.

    The answer to that write tells of it, and the watch only when that is no news.
    """

    def __init__(self, connection: Requests) -> None:
        super().__init__(connection)
        self._deleted: set[str] = set()

    async def call(self, method: str, path: str, **rest: Any) -> Raw:
        if _is_node_patch(method, path) and not _LOCKS & _metadata(rest).keys() and path not in self._deleted:
            self._deleted.add(path)
            await super().call("DELETE", path)
        return await super().call(method, path, **rest)


def _is_node_patch(method: str, path: str) -> bool:
    return method == "PATCH" and place_of(path).plural == NODES


def _metadata(rest: Mapping[str, Any]) -> Mapping[str, Any]:
    body: Mapping[str, Any] = rest.get("body") or {}
    return body.get("metadata") or {}


ILL_LUCK: Final[Mapping[str, Flaw]] = {
    "a Node is deleted between look and write": Flaw(kube=_Deleted),
}
