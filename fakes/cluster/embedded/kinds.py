"""Which resources are served: the built-in ones, and one for each CustomResourceDefinition."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fakes.cluster.embedded import models, problems
from fakes.cluster.embedded.objects import Object, dig, name_of, with_condition
from fakes.cluster.embedded.problems import Cause, Problem
from fakes.cluster.embedded.schema import IMMUTABLE, INT_OR_STRING, PRESERVE, RULES

CRDS: Final = "customresourcedefinitions"
_SCALE: Final = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}

# Group, version, plural, kind, and: n namespaced, s has a status of its own, g has a generation, c can be scaled, a in
# the category "all"; short names behind it.
_BUILT_IN: Final = """
                          v1 configmaps                       ConfigMap                        n    cm
                          v1 endpoints                        Endpoints                        n    ep
                          v1 events                           Event                            n    ev
                          v1 namespaces                       Namespace                        s    ns
                          v1 nodes                            Node                             s    no
                          v1 persistentvolumeclaims           PersistentVolumeClaim            ns   pvc
                          v1 persistentvolumes                PersistentVolume                 s    pv
                          v1 pods                             Pod                              nsga po
                          v1 secrets                          Secret                           n
                          v1 serviceaccounts                  ServiceAccount                   n    sa
                          v1 services                         Service                          nsa  svc
admissionregistration.k8s.io v1 mutatingwebhookconfigurations    MutatingWebhookConfiguration     -
admissionregistration.k8s.io v1 validatingadmissionpolicies      ValidatingAdmissionPolicy        -
admissionregistration.k8s.io v1 validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding -
admissionregistration.k8s.io v1 validatingwebhookconfigurations  ValidatingWebhookConfiguration   -
apiextensions.k8s.io      v1 customresourcedefinitions        CustomResourceDefinition         sg   crd,crds
apps                      v1 controllerrevisions              ControllerRevision               n
apps                      v1 daemonsets                       DaemonSet                        nsga ds
apps                      v1 deployments                      Deployment                       nsgca deploy
apps                      v1 replicasets                      ReplicaSet                       nsgca rs
apps                      v1 statefulsets                     StatefulSet                      nsgca sts
batch                     v1 jobs                             Job                              nsga
coordination.k8s.io       v1 leases                           Lease                            n
discovery.k8s.io          v1 endpointslices                   EndpointSlice                    n
networking.k8s.io         v1 networkpolicies                  NetworkPolicy                    n    netpol
policy                    v1 poddisruptionbudgets             PodDisruptionBudget              nsg  pdb
rbac.authorization.k8s.io v1 clusterrolebindings              ClusterRoleBinding               -
rbac.authorization.k8s.io v1 clusterroles                     ClusterRole                      -
rbac.authorization.k8s.io v1 rolebindings                     RoleBinding                      n
rbac.authorization.k8s.io v1 roles                            Role                             n
scheduling.k8s.io         v1 priorityclasses                  PriorityClass                    -    pc
storage.k8s.io            v1 storageclasses                   StorageClass                     -    sc
"""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a resource. `columns` are those of the CRD."""

    name: str
    schema: Object = field(default_factory=dict)
    columns: tuple[Object, ...] = ()
    has_status: bool = False
    scale: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What is served under one plural. `storage` is the version that objects are kept in."""

    group: str
    plural: str
    kind: str
    singular: str
    list_kind: str
    namespaced: bool
    versions: Mapping[str, Version]
    storage: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    custom: bool = False
    has_generation: bool = True

    @property
    def path(self) -> str:
        """The plural and the group, `pods` or `nodeclaims.karpenter.sh`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def api_version(self, version: str) -> str:
        """Return the apiVersion of objects in a version."""
        return f"{self.group}/{version}" if self.group else version

    def schema(self, version: str) -> Object:
        """Return the schema of a version."""
        return self.versions[version].schema if self.custom else models.schema_of(self.kind)

    def not_found(self, name: str) -> Problem:
        """Return 404 for an object of this resource."""
        return problems.not_found(self.group, self.plural, name)

    def invalid(self, name: str, causes: Iterable[Cause]) -> Problem:
        """Return 422 for an object of this resource."""
        return problems.invalid(self.kind, name, list(causes), group=self.group)


class Registry:
    """All resources, by group and plural."""

    def __init__(self) -> None:
        self._resources = {(made.group, made.plural): made for made in _built_in()}

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._resources.values())

    def get(self, group: str, plural: str) -> Resource | None:
        """Return the resource, None where it is not served."""
        return self._resources.get((group, plural))

    def built_in(self, plural: str) -> Resource:
        """Return a built-in resource by its plural, which no two of them share."""
        return next(found for found in self if found.plural == plural and not found.custom)

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """Return the resource of a kind, None where it is not served."""
        group, _, version = api_version.rpartition("/")
        return next((r for r in self if (r.group, r.kind) == (group, kind) and version in r.versions), None)

    def groups(self) -> dict[str, list[str]]:
        """Return the groups and their versions, those that CRDs prefer first."""
        groups: dict[str, list[str]] = {}
        for resource in self:
            versions = groups.setdefault(resource.group, [])
            versions += [version for version in resource.versions if version not in versions]
        return {group: sorted(versions, key=_preference) for group, versions in groups.items()}

    def install(self, crd: Object) -> Resource:
        """Serve what a CustomResourceDefinition describes."""
        made = _from_crd(crd)
        self._resources[(made.group, made.plural)] = made
        return made

    def remove(self, crd: Object) -> None:
        """Serve it no more."""
        self._resources.pop((crd["spec"]["group"], crd["spec"]["names"]["plural"]), None)


def complete_crd(crd: Object) -> None:
    """Fill in what the API server fills in, and say that all names are accepted."""
    spec = crd["spec"]
    names = spec["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    spec.setdefault("conversion", {"strategy": "None"})
    if "status" not in crd:
        accepted = with_condition([], "NamesAccepted", "True", reason="NoConflicts", message="no conflicts found")
        told = "the initial names have been accepted"
        crd["status"] = {
            "conditions": with_condition(accepted, "Established", "True", reason="InitialNamesAccepted", message=told),
            "acceptedNames": names,
            "storedVersions": [version["name"] for version in spec["versions"] if version["storage"]],
        }


def check_crd(crd: Object) -> Iterator[Cause]:
    """Yield what is wrong with a CustomResourceDefinition, or is beyond this control plane."""
    spec = crd["spec"]
    expected = f"{spec['names']['plural']}.{spec['group']}"
    if name_of(crd) != expected:
        yield problems.wrong("metadata.name", name_of(crd), 'must be spec.names.plural+"."+spec.group')
    if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
        text = "must have exactly one version marked as storage version"
        yield problems.wrong("spec.versions", [version["name"] for version in spec["versions"]], text)
    if dig(spec, "conversion", "strategy") == "Webhook":
        yield problems.forbidden(
            "spec.conversion.strategy", "no conversion webhook is ever called by this control plane"
        )
    for index, version in enumerate(spec["versions"]):
        # A schema that all versions share is told of in the place that it had in v1beta1.
        place = "spec.validation" if len(spec["versions"]) == 1 else f"spec.versions[{index}].schema"
        path = f"{place}.openAPIV3Schema"
        schema = dig(version, "schema", "openAPIV3Schema")
        if schema is None:
            yield problems.required(path, "schemas are required")
        else:
            yield from _check_structure(schema, path)


def rules_ignored(crd: Object) -> int:
    """Count the rules in CEL that are not understood here."""

    def count(node: Any) -> int:
        if isinstance(node, dict):
            rules = node.get(RULES)
            own = sum(rule["rule"].strip() != IMMUTABLE for rule in rules) if isinstance(rules, list) else 0
            return own + sum(count(inner) for inner in node.values())
        return sum(count(inner) for inner in node) if isinstance(node, list) else 0

    return count(crd["spec"]["versions"])


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
            plural=plural,
            kind=kind,
            singular=kind.lower(),
            list_kind=f"{kind}List",
            namespaced="n" in flags,
            versions={version: Version(name=version, has_status="s" in flags, scale=_SCALE if "c" in flags else None)},
            storage=version,
            short_names=tuple(short[0].split(",")) if short else (),
            categories=("all",) if "a" in flags else (),
            has_generation="g" in flags,
        )


def _from_crd(crd: Object) -> Resource:
    spec = crd["spec"]
    names = spec["names"]
    versions = [version for version in spec["versions"] if version["served"]]
    return Resource(
        group=spec["group"],
        plural=names["plural"],
        kind=names["kind"],
        singular=names["singular"],
        list_kind=names["listKind"],
        namespaced=spec["scope"] == "Namespaced",
        versions={
            version["name"]: Version(
                name=version["name"],
                schema=_whole(version["schema"]["openAPIV3Schema"]),
                columns=tuple(version.get("additionalPrinterColumns") or ()),
                has_status="status" in (version.get("subresources") or {}),
                scale=(version.get("subresources") or {}).get("scale"),
            )
            for version in sorted(versions, key=lambda version: _preference(version["name"]))
        },
        storage=next(version["name"] for version in spec["versions"] if version["storage"]),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        custom=True,
    )


def _whole(schema: Object) -> Object:
    """Return the schema with what every object has, whatever its CRD says of it."""
    every = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    own = {**every, **(schema.get("properties") or {}), "metadata": models.schema_of("ObjectMeta")}
    return {**schema, "properties": own}


def _preference(version: str) -> tuple[int, ...]:
    """Order versions as Kubernetes does: v10, v2, v1, v11beta2, v10beta3, v3beta1, v12alpha1."""
    head, _, rest = version.removeprefix("v").partition("beta")
    stage = 1 if rest else 0
    if not rest:
        head, _, rest = head.partition("alpha")
        stage = 2 if rest else 0
    return stage, -int(head) if head.isdigit() else 0, -int(rest) if rest.isdigit() else 0
