"""Who asks. Everybody with a token is let in and may do everything: roles and bindings are kept, and not looked at."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fakes.cluster.embedded.objects import Object, name_of, namespace_of, now, uid_of
from fakes.cluster.embedded.problems import Problem, not_served

_EVERYBODY: Final = "everybody may do everything here: RBAC is not evaluated"
_TOKEN_SECONDS: Final = 3600


@dataclass(frozen=True, kw_only=True)
class User:
    """Who a token stands for, and until when."""

    name: str
    groups: tuple[str, ...]
    until: datetime | None = None


class Access:
    """The tokens that are good."""

    def __init__(self, tokens: dict[str, User]) -> None:
        self._users = tokens

    def user(self, authorization: str) -> User | None:
        """Return who sends such a header, None for nobody in particular. Raises Problem: 401 for a wrong token."""
        if not authorization:
            return None
        user = self._users.get(authorization.removeprefix("Bearer "))
        if user is None or (user.until is not None and user.until < datetime.now(UTC)):
            raise Problem(401, "Unauthorized", "Unauthorized")
        return user

    def require(self, authorization: str) -> User:
        """Return who sends such a header. Raises Problem: 401 for nobody."""
        user = self.user(authorization)
        if user is None:
            raise Problem(401, "Unauthorized", "Unauthorized")
        return user

    def token(self, account: Object, request: Any) -> Object:
        """Answer a TokenRequest for a service account."""
        spec = (request or {}).get("spec") or {}
        seconds = int(spec.get("expirationSeconds") or _TOKEN_SECONDS)
        namespace, until = namespace_of(account), datetime.now(UTC) + timedelta(seconds=seconds)
        token = secrets.token_urlsafe(32)
        self._users[token] = User(
            name=f"system:serviceaccount:{namespace}:{name_of(account)}",
            groups=("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"),
            until=until,
        )
        status = {"token": token, "expirationTimestamp": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name_of(account), "namespace": namespace, "uid": uid_of(account)},
            "spec": {"audiences": ["https://kubernetes.default.svc"], **spec, "expirationSeconds": seconds},
            "status": status,
        }

    def review(self, user: User, plural: str, body: Any) -> Object:
        """Answer who somebody is and what he may do. Raises Problem: 404 for other questions."""
        spec = (body or {}).get("spec") or {}
        if plural == "selfsubjectreviews":
            info = {"username": user.name, "groups": [*user.groups]}
            return _review("authentication", "SelfSubjectReview", {}, {"userInfo": info}, creationTimestamp=now())
        if plural == "selfsubjectaccessreviews":
            return _review("authorization", "SelfSubjectAccessReview", spec, {"allowed": True, "reason": _EVERYBODY})
        if plural == "selfsubjectrulesreviews":
            every = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            rules = {"resourceRules": [every], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}
            return _review("authorization", "SelfSubjectRulesReview", spec, {**rules, "incomplete": False})
        raise not_served()


def _review(group: str, kind: str, spec: Object, status: Object, **metadata: str) -> Object:
    head = {"kind": kind, "apiVersion": f"{group}.k8s.io/v1", "metadata": metadata}
    return {**head, **({"spec": spec} if spec else {}), "status": status}
