"""Which pods are on which node, and whether a pod may and can be on one."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from fractions import Fraction

from fakes.cluster.embedded.objects import Object, dig, labels_of, name_of
from fakes.cluster.embedded.quantity import parse
from fakes.cluster.embedded.rest import FINISHED
from fakes.cluster.embedded.selectors import relation
from fakes.cluster.embedded.store import Event

AFFINITY = "node(s) didn't match Pod's node affinity/selector"
TAINTED = "node(s) had untolerated taint(s)"
HARD = ("NoSchedule", "NoExecute")


class Placement:
    """The pods on each node, kept up to date by the changes it is told of."""

    def __init__(self) -> None:
        self._pods: defaultdict[str, dict[str, Object]] = defaultdict(dict)

    def note(self, event: Event) -> None:
        """Take in a change."""
        if event.item.resource.path != "pods":
            return
        pod = event.item.object
        if node := dig(pod, "spec", "nodeName"):
            if event.change == "DELETED":
                self._pods[node].pop(pod["metadata"]["uid"], None)
            else:
                self._pods[node][pod["metadata"]["uid"]] = pod

    def on(self, node: str) -> list[Object]:
        """Return the pods on a node."""
        return list(self._pods.get(node, {}).values())

    def running(self, node: str) -> list[Object]:
        """Return the pods on a node that take up room there."""
        return [pod for pod in self.on(node) if pod["status"].get("phase") not in FINISHED]

    def obstacles(self, pod: Object, node: Object) -> list[str]:
        """Return why a pod cannot be put on a node, in the scheduler's words; nothing when it can."""
        if not is_wanted(pod, node):
            return [AFFINITY]
        if untolerated(pod, dig(node, "spec", "taints") or (), HARD):
            return [TAINTED]
        there = self.running(name_of(node))
        free = {name: parse(amount) for name, amount in (dig(node, "status", "allocatable") or {}).items()}
        for other in there:
            for name, amount in _requests(other).items():
                free[name] = free.get(name, Fraction(0)) - amount
        lacking = [f"Insufficient {name}" for name, amount in _requests(pod).items() if 0 < amount > free.get(name, 0)]
        return lacking + (["Too many pods"] if len(there) >= free.get("pods", Fraction(0)) else [])


def is_wanted(pod: Object, node: Object) -> bool:
    """Whether a pod's node selector and required node affinity take a node."""
    labels, spec = labels_of(node), pod["spec"]
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    terms = dig(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
    return not terms or any(_is_met(term, labels, node) for term in terms)


def pinned_to(pod: Object) -> str | None:
    """Return the one node that a DaemonSet's pod is made for."""
    terms = dig(
        pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"
    )
    for term in terms or ():
        for entry in term.get("matchFields") or ():
            if entry["key"] == "metadata.name" and entry["operator"] == "In":
                return str(entry["values"][0])
    return None


def untolerated(pod: Object, taints: Iterable[Object], effects: Container[str]) -> list[Object]:
    """Return the taints of such effects that a pod does not tolerate."""
    tolerations = pod["spec"].get("tolerations") or ()
    return [
        taint
        for taint in taints
        if str(taint.get("effect")) in effects and not any(tolerates(toleration, taint) for toleration in tolerations)
    ]


def tolerates(toleration: Object, taint: Object) -> bool:
    """Whether a toleration is for a taint."""
    if toleration.get("effect") not in {None, "", taint.get("effect")}:
        return False
    if toleration.get("key") not in {None, "", taint["key"]}:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def _is_met(term: Object, labels: Mapping[str, str], node: Object) -> bool:
    fields = {"metadata.name": name_of(node)}
    expressions, of_fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    return (
        bool(expressions or of_fields)
        and all(relation(labels, entry) for entry in expressions)
        and all(relation(fields, entry) for entry in of_fields)
    )


def _requests(pod: Object) -> dict[str, Fraction]:
    """Return what a pod asks for: the sum of its containers, or one init container where that asks for more."""
    total: dict[str, Fraction] = {}
    for container in pod["spec"].get("containers") or ():
        for name, amount in (dig(container, "resources", "requests") or {}).items():
            total[name] = total.get(name, Fraction(0)) + parse(amount)
    for container in pod["spec"].get("initContainers") or ():
        for name, amount in (dig(container, "resources", "requests") or {}).items():
            total[name] = max(total.get(name, Fraction(0)), parse(amount))
    return total
