"""Which resources are served: the built-in ones, and one for each version of each CustomResourceDefinition."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from fakes.cluster.embedded import models, problems
from fakes.cluster.embedded.objects import Object, dig, name_of, with_condition
from fakes.cluster.embedded.problems import Cause, Problem
from fakes.cluster.embedded.schema import IMMUTABLE, INT_OR_STRING, PRESERVE, RULES

CRDS: Final = "customresourcedefinitions"

# Group, version, plural, kind, and: n namespaced, s has a status of its own, g has a generation, a in the category
# "all"; short names behind it. No two of them share a plural.
_BUILT_IN: Final = """
                          v1 configmaps                ConfigMap                n    cm
                          v1 events                    Event                    n    ev
                          v1 namespaces                Namespace                s    ns
                          v1 nodes                     Node                     s    no
                          v1 persistentvolumeclaims    PersistentVolumeClaim    ns   pvc
                          v1 persistentvolumes         PersistentVolume         s    pv
                          v1 pods                      Pod                      nsga po
                          v1 secrets                   Secret                   n
                          v1 serviceaccounts           ServiceAccount           n    sa
                          v1 services                  Service                  nsa  svc
apiextensions.k8s.io      v1 customresourcedefinitions CustomResourceDefinition sg   crd,crds
apps                      v1 daemonsets                DaemonSet                nsga ds
apps                      v1 deployments               Deployment               nsga deploy
apps                      v1 replicasets               ReplicaSet               nsga rs
apps                      v1 statefulsets              StatefulSet              nsga sts
batch                     v1 jobs                      Job                      nsga
coordination.k8s.io       v1 leases                    Lease                    n
policy                    v1 poddisruptionbudgets      PodDisruptionBudget      nsg  pdb
rbac.authorization.k8s.io v1 clusterrolebindings       ClusterRoleBinding       -
rbac.authorization.k8s.io v1 clusterroles              ClusterRole              -
rbac.authorization.k8s.io v1 rolebindings              RoleBinding              n
rbac.authorization.k8s.io v1 roles                     Role                     n
scheduling.k8s.io         v1 priorityclasses           PriorityClass            -    pc
storage.k8s.io            v1 csinodes                  CSINode                  -
storage.k8s.io            v1 storageclasses            StorageClass             -    sc
storage.k8s.io            v1 volumeattachments         VolumeAttachment         s
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Resource:
    """What is served under one plural in one version. `columns` are those of the CRD."""

    group: str
    version: str
    plural: str
    kind: str
    singular: str
    list_kind: str
    namespaced: bool
    has_status: bool
    has_generation: bool = True
    custom: bool = False
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    columns: tuple[Object, ...] = ()
    custom_schema: Object = field(default_factory=dict, repr=False)

    @property
    def path(self) -> str:
        """The plural and the group, `pods` or `nodeclaims.karpenter.sh`: all versions of an object lie there."""
        return problems.qualified(self.plural, self.group)

    @property
    def api_version(self) -> str:
        """The apiVersion of objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def head(self) -> Object:
        """What objects say that they are."""
        return {"kind": self.kind, "apiVersion": self.api_version}

    @property
    def schema(self) -> Object:
        """The schema of objects."""
        return self.custom_schema if self.custom else models.schema_of(self.kind)

    def problem(self, code: int, reason: str, name: str, what: str) -> Problem:
        """Return a problem that an object is in: there is none, it is there already, it may not be."""
        return Problem(code, reason, f"{self._called(name)} {what}", details=self._details(name))

    def not_found(self, name: str) -> Problem:
        """Return 404 for an object."""
        return self.problem(404, "NotFound", name, "not found")

    def conflict(self, name: str, why: str) -> Problem:
        """Return 409 for a decision on an old state of an object."""
        text = f"Operation cannot be fulfilled on {self._called(name)}: {why}"
        return Problem(409, "Conflict", text, details=self._details(name))

    def invalid(self, name: str, causes: Iterable[Cause]) -> Problem:
        """Return 422 for an object."""
        return problems.invalid(self.kind, name, list(causes), group=self.group)

    def _called(self, name: str) -> str:
        return f'{self.path} "{name}"'

    def _details(self, name: str) -> Object:
        return problems.details(self.plural, self.group, name)


class Registry:
    """All resources, by group, version and plural."""

    def __init__(self) -> None:
        self.built_in = {made.plural: made for made in _built_in()}
        self._resources = {(made.group, made.version, made.plural): made for made in self.built_in.values()}

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._resources.values())

    def get(self, group: str, version: str, plural: str) -> Resource | None:
        """Return the resource, None where it is not served."""
        return self._resources.get((group, version, plural))

    def of(self, group: str, version: str) -> list[Resource]:
        """Return the resources of a group and version, sorted by plural."""
        found = (resource for resource in self if (resource.group, resource.version) == (group, version))
        return sorted(found, key=lambda resource: resource.plural)

    def groups(self) -> dict[str, list[str]]:
        """Return the groups and their versions, those that CRDs prefer first."""
        groups: dict[str, set[str]] = {}
        for resource in self:
            groups.setdefault(resource.group, set()).add(resource.version)
        return {group: sorted(versions, key=_preference) for group, versions in groups.items()}

    def install(self, crd: Object) -> None:
        """Serve what a CustomResourceDefinition describes, and no more what it described before."""
        self.remove(crd)
        for made in _from_crd(crd):
            self._resources[(made.group, made.version, made.plural)] = made

    def remove(self, crd: Object) -> None:
        """Serve it no more."""
        for resource in [resource for resource in self if resource.path == name_of(crd)]:
            del self._resources[(resource.group, resource.version, resource.plural)]


def complete_crd(crd: Object) -> None:
    """Fill in what the API server fills in, and say that all names are accepted."""
    spec = crd["spec"]
    names = spec["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    spec.setdefault("conversion", {"strategy": "None"})
    accepted = with_condition([], "NamesAccepted", "True", reason="NoConflicts", message="no conflicts found")
    told = "the initial names have been accepted"
    crd["status"] = {
        "conditions": with_condition(accepted, "Established", "True", reason="InitialNamesAccepted", message=told),
        "acceptedNames": names,
        "storedVersions": [version["name"] for version in spec["versions"] if version.get("storage")],
    }


def check_crd(crd: Object) -> Iterator[Cause]:
    """Yield what is wrong with a CustomResourceDefinition, or is beyond this control plane."""
    spec = crd["spec"]
    if name_of(crd) != f"{spec['names']['plural']}.{spec['group']}":
        yield problems.wrong("metadata.name", name_of(crd), 'must be spec.names.plural+"."+spec.group')
    if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
        text = "must have exactly one version marked as storage version"
        yield problems.wrong("spec.versions", [version["name"] for version in spec["versions"]], text)
    if dig(spec, "conversion", "strategy") == "Webhook":
        text = "no conversion webhook is ever called by this control plane"
        yield problems.forbidden("spec.conversion.strategy", text)
    for index, version in enumerate(spec["versions"]):
        # A schema that all versions share is told of in the place that it had in v1beta1.
        place = "spec.validation" if len(spec["versions"]) == 1 else f"spec.versions[{index}].schema"
        path, schema = f"{place}.openAPIV3Schema", dig(version, "schema", "openAPIV3Schema")
        if schema is None:
            yield problems.required(path, "schemas are required")
        else:
            yield from _check_structure(schema, path)


def rules_ignored(node: Any) -> int:
    """Count the rules in CEL below a node of a schema that are not understood here."""
    if isinstance(node, dict):
        rules = node.get(RULES)
        own = sum(rule["rule"].strip() != IMMUTABLE for rule in rules) if isinstance(rules, list) else 0
        return own + sum(rules_ignored(inner) for inner in node.values())
    return sum(rules_ignored(inner) for inner in node) if isinstance(node, list) else 0


def _check_structure(schema: Object, path: str) -> Iterator[Cause]:
    if not schema.get("type") and not schema.get(INT_OR_STRING) and not schema.get(PRESERVE):
        yield problems.required(f"{path}.type", "must not be empty for specified object fields")
    for name, inner in (schema.get("properties") or {}).items():
        yield from _check_structure(inner, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _check_structure(schema[name], f"{path}.{name}")


def _built_in() -> Iterator[Resource]:
    for line in _BUILT_IN.strip().splitlines():
        words = line.split()
        group = "" if words[0] == "v1" else words.pop(0)
        version, plural, kind, flags, *short = words
        yield Resource(
            group=group,
            version=version,
            plural=plural,
            kind=kind,
            singular=kind.lower(),
            list_kind=f"{kind}List",
            namespaced="n" in flags,
            has_status="s" in flags,
            has_generation="g" in flags,
            short_names=tuple(short[0].split(",")) if short else (),
            categories=("all",) if "a" in flags else (),
        )


def _from_crd(crd: Object) -> Iterator[Resource]:
    spec = crd["spec"]
    names = spec["names"]
    for version in spec["versions"]:
        if version.get("served"):
            yield Resource(
                group=spec["group"],
                version=version["name"],
                plural=names["plural"],
                kind=names["kind"],
                singular=names.get("singular") or names["kind"].lower(),
                list_kind=names.get("listKind") or f"{names['kind']}List",
                namespaced=spec["scope"] == "Namespaced",
                has_status="status" in (version.get("subresources") or {}),
                custom=True,
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                columns=tuple(version.get("additionalPrinterColumns") or ()),
                custom_schema=_whole(version["schema"]["openAPIV3Schema"]),
            )


def _whole(schema: Object) -> Object:
    """Return the schema with what every object has, whatever its CRD says of it."""
    every = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    own = {**every, **(schema.get("properties") or {}), "metadata": models.schema_of("ObjectMeta")}
    return {**schema, "properties": own}


def _preference(version: str) -> tuple[int, int, int, str]:
    """Order versions as Kubernetes does: v10, v2, v1, v11beta2, v10beta3, v3beta1, v12alpha1, and others behind."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return 3, 0, 0, version
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return stage, -int(match[1]), -int(match[3] or 0), version
