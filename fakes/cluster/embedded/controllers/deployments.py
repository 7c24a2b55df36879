"""Deployments: a ReplicaSet for each template. A rollout has two steps: all new pods, then no old ones."""

from fakes.cluster.embedded.controllers.workload import Workload, revision
from fakes.cluster.embedded.objects import Object, name_of, namespace_of, with_condition
from fakes.cluster.embedded.rest import own_call

_HASH = "pod-template-hash"


class Deployments(Workload):
    """Makes the ReplicaSet of the present template, and shrinks the others once it is ready."""

    plural, kind, owned = "deployments", "Deployment", "replicasets.apps"

    def reconcile(self, item: Object) -> None:
        """Go on with a rollout."""
        name, wanted = f"{name_of(item)}-{revision(item)}", item["spec"]["replicas"]
        sets = self.dependents(item)
        new = next((entry for entry in sets if name_of(entry) == name), None)
        old = [entry for entry in sets if name_of(entry) != name]
        recreate = item["spec"]["strategy"]["type"] == "Recreate"
        left = sum((entry.get("status") or {}).get("replicas", 0) for entry in old)
        if new is None and not (recreate and left):
            new = self._create(item, name)
        elif new is not None:
            self._scale(new, wanted)
        status = (new or {}).get("status") or {}
        ready = status.get("readyReplicas", 0)
        if recreate or ready >= wanted:
            for entry in old:
                self._scale(entry, 0)
        total = status.get("replicas", 0) + left
        ready += sum((entry.get("status") or {}).get("readyReplicas", 0) for entry in old)
        conditions = with_condition(
            (item.get("status") or {}).get("conditions"),
            "Available",
            "True" if ready >= wanted else "False",
            reason="MinimumReplicasAvailable" if ready >= wanted else "MinimumReplicasUnavailable",
        )
        done = status.get("readyReplicas", 0) >= wanted and not left
        why = "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"
        self.write_status(
            item,
            replicas=total or None,
            updatedReplicas=status.get("replicas") or None,
            readyReplicas=ready or None,
            availableReplicas=ready or None,
            unavailableReplicas=max(wanted - ready, 0) or None,
            conditions=with_condition(conditions, "Progressing", "True", reason=why),
        )

    def _create(self, item: Object, name: str) -> Object:
        spec, label = item["spec"], {_HASH: revision(item)}
        template = spec["template"]
        labels = {**(template["metadata"].get("labels") or {}), **label}
        selector = {**spec["selector"], "matchLabels": {**(spec["selector"].get("matchLabels") or {}), **label}}
        body = {
            "metadata": {"name": name, "labels": labels, "ownerReferences": [self.reference(item)]},
            "spec": {
                "replicas": spec["replicas"],
                "selector": selector,
                "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
            },
        }
        made = self.api.create(self.api.registry.built_in("replicasets"), body, namespace=namespace_of(item))
        return made.object

    def _scale(self, item: Object, replicas: int) -> None:
        key = (namespace_of(item), name_of(item))
        resource = self.api.registry.built_in("replicasets")
        self.api.update(
            resource, key, lambda old: {**old, "spec": {**old["spec"], "replicas": replicas}}, call=own_call()
        )
