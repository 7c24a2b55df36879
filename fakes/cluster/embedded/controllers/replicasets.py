"""ReplicaSets: so many pods of one template."""

from fakes.cluster.embedded.controllers.workload import Workload, is_active, is_ready
from fakes.cluster.embedded.objects import Object


class ReplicaSets(Workload):
    """Creates and deletes pods until there are as many as wanted."""

    plural, kind = "replicasets", "ReplicaSet"

    def reconcile(self, item: Object) -> None:
        """Create or delete pods, those that are not ready first."""
        pods = [pod for pod in self.dependents(item) if is_active(pod)]
        wanted = item["spec"]["replicas"]
        for _ in range(wanted - len(pods)):
            self.create_pod(item)
        for pod in sorted(pods, key=lambda pod: (is_ready(pod), pod["metadata"]["creationTimestamp"]))[
            : -wanted or None
        ]:
            if len(pods) > wanted:
                self.delete(pod)
        pods = [pod for pod in self.dependents(item) if is_active(pod)]
        ready = sum(map(is_ready, pods))
        self.write_status(
            item,
            replicas=len(pods),
            fullyLabeledReplicas=len(pods) or None,
            readyReplicas=ready or None,
            availableReplicas=ready or None,
        )
