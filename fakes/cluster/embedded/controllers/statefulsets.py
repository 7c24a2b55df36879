"""StatefulSets: pods with numbers, one after the other unless they may come all at once."""

from fakes.cluster.embedded.controllers.workload import HASH_LABEL, Workload, is_active, is_ready, revision
from fakes.cluster.embedded.objects import Object, is_deleting, labels_of, name_of, namespace_of
from fakes.cluster.embedded.rest import FINISHED


class StatefulSets(Workload):
    """Makes pod 0, 1 and so on; takes the highest away first; claims of volume templates are objects only."""

    plural, kind = "statefulsets", "StatefulSet"

    def reconcile(self, item: Object) -> None:
        """Do the next step."""
        name, wanted = name_of(item), item["spec"]["replicas"]
        pods = {int(name_of(pod).rpartition("-")[2]): pod for pod in self.dependents(item)}
        self._step(item, pods, wanted)
        pods = {int(name_of(pod).rpartition("-")[2]): pod for pod in self.dependents(item)}
        current, ready = f"{name}-{revision(item)}", sum(map(is_ready, pods.values()))
        updated = sum(labels_of(pod).get(HASH_LABEL) == current for pod in pods.values())
        old = (item.get("status") or {}).get("currentRevision", current)
        done = updated == len(pods) == ready == wanted
        self.write_status(
            item,
            replicas=len(pods),
            readyReplicas=ready or None,
            availableReplicas=ready,
            currentReplicas=(updated if done or old == current else len(pods) - updated) or None,
            updatedReplicas=updated or None,
            currentRevision=current if done else old,
            updateRevision=current,
            collisionCount=0,
        )

    def _step(self, item: Object, pods: dict[int, Object], wanted: int) -> None:
        ordered = item["spec"]["podManagementPolicy"] == "OrderedReady"
        for ordinal in range(wanted):
            pod = pods.get(ordinal)
            if pod is None:
                self._create(item, ordinal)
            elif pod["status"].get("phase") in FINISHED:
                self.delete(pod)
            if ordered and (pod is None or not is_ready(pod)):
                return
        surplus = sorted((ordinal for ordinal in pods if ordinal >= wanted), reverse=True)
        for ordinal in surplus:
            self.delete(pods[ordinal])
            if ordered:
                return
        self._roll(item, pods, wanted)

    def _roll(self, item: Object, pods: dict[int, Object], wanted: int) -> None:
        """Replace one pod of an old template, the highest first, when all the others are ready."""
        strategy = item["spec"]["updateStrategy"]
        present = f"{name_of(item)}-{revision(item)}"
        if strategy["type"] != "RollingUpdate" or any(is_deleting(pod) for pod in pods.values()):
            return
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        for ordinal in range(wanted - 1, partition - 1, -1):
            if labels_of(pods[ordinal]).get(HASH_LABEL) != present:
                self.delete(pods[ordinal])
                return
            if not is_active(pods[ordinal]) or not is_ready(pods[ordinal]):
                return

    def _create(self, item: Object, ordinal: int) -> None:
        name, spec = f"{name_of(item)}-{ordinal}", item["spec"]
        claims = {}
        for claim in spec.get("volumeClaimTemplates") or ():
            claims[name_of(claim)] = claimed = f"{name_of(claim)}-{name}"
            if self.api.find("persistentvolumeclaims", (namespace_of(item), claimed)) is None:
                labels = (spec["selector"] or {}).get("matchLabels")
                body = {"metadata": {"name": claimed, "labels": labels}, "spec": claim["spec"]}
                resource = self.api.registry.built_in("persistentvolumeclaims")
                self.api.create(resource, body, namespace=namespace_of(item))
        volumes = [v for v in spec["template"]["spec"].get("volumes") or () if v["name"] not in claims]
        volumes += [{"name": k, "persistentVolumeClaim": {"claimName": v}} for k, v in claims.items()]
        labels = {
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(ordinal),
            HASH_LABEL: f"{name_of(item)}-{revision(item)}",
        }
        self.create_pod(
            item, name=name, labels=labels, hostname=name, subdomain=spec.get("serviceName"), volumes=volumes
        )
