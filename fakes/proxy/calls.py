"""What a request to the Kubernetes API asks for, in the terms of RBAC, and a log of all requests."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Self

_VERBS: Final = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# What stands behind a namespace's name and is no kind in it (apiserver/pkg/endpoints/request, namespaceSubresources).
_OF_NAMESPACES: Final = ("status", "finalize")


@dataclass(kw_only=True)
class Call:
    """One request. No header but the user agent is kept, and no body: tokens and secrets are in them.

    `verb` and `resource` are as a role has them: `watch`, `nodeclaims/status`. Where no resource is asked for, as in
    discovery, `resource` is empty and `verb` the method. `name` is empty for whole collections; of a create it is the
    new object's. `time` is the event loop's, in seconds. `status` is None while there is no answer, and for good where
    the connection was torn down; `spoiled` tells that this is a fault's doing and not the API server's.
    """

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    agent: str = ""
    time: float = 0.0
    status: int | None = None
    spoiled: bool = False

    @classmethod
    def of(cls, method: str, path: str, *, query: Mapping[str, str], body: bytes = b"") -> Self:
        """Read a request as the API server does (apiserver/pkg/endpoints/request, NewRequestInfo)."""
        match path.strip("/").split("/"):
            case ["api", _, _, *_] as parts:
                group, rest = "", parts[2:]
            case ["apis", _, _, _, *_] as parts:
                group, rest = parts[1], parts[3:]
            case _:
                return cls(verb=method.lower(), path=path)
        namespace = ""
        match rest:
            case ["namespaces", namespace, kind, *more] if kind not in _OF_NAMESPACES:
                rest = [kind, *more]
            case ["namespaces", namespace, *_]:
                pass
        resource, name, subresources = rest[0], "".join(rest[1:2]), rest[2:]
        verb = _VERBS.get(method, method.lower())
        if not name and verb == "delete":
            verb = "deletecollection"
        elif not name and verb == "get":
            verb = "list" if query.get("watch", "0").lower() in ("0", "false") else "watch"
            name = query.get("fieldSelector", "").partition("metadata.name=")[2].partition(",")[0]
        elif not name and verb == "create":
            name = _name_in(body)
        kind = "/".join((resource, *subresources))
        return cls(verb=verb, group=group, resource=kind, namespace=namespace, name=name, path=path)


class CallLog:
    """All calls since the last reset, as they came."""

    def __init__(self) -> None:
        self._calls: list[Call] = []

    def __iter__(self) -> Iterator[Call]:
        return iter(tuple(self._calls))

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> None:
        """Log a call."""
        self._calls.append(call)

    def count(self, verb: str = "*", resource: str = "*", *, name: str = "*", agent: str = "*") -> int:
        """Return how many calls match the globs."""
        return sum(
            fnmatchcase(call.verb, verb)
            and fnmatchcase(call.resource, resource)
            and fnmatchcase(call.name, name)
            and fnmatchcase(call.agent, agent)
            for call in self._calls
        )

    def counts(self) -> Counter[tuple[str, str]]:
        """Return the number of calls by verb and resource."""
        return Counter((call.verb, call.resource) for call in self._calls)

    def reset(self) -> None:
        """Forget all calls."""
        self._calls.clear()


def _name_in(body: bytes) -> str:
    try:
        return str(json.loads(body)["metadata"]["name"])
    except (ValueError, LookupError, TypeError):
        return ""
