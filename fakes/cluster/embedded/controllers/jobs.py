"""Jobs: pods that come to an end. A pod that fails is replaced at once, where the real controller waits ten seconds."""

from typing import Final

from fakes.cluster.embedded.controllers.workload import Workload, is_active, is_ready
from fakes.cluster.embedded.objects import (
    Object,
    condition,
    controller_of,
    name_of,
    namespace_of,
    now,
    with_condition,
    with_metadata,
)
from fakes.cluster.embedded.rest import FINISHED, own_call
from fakes.cluster.embedded.store import Key

# Pods carry it until their end is counted, so that none is counted twice or never.
_TRACKING: Final = "batch.kubernetes.io/job-tracking"


class Jobs(Workload):
    """Runs pods until enough have succeeded or too many have failed."""

    plural, kind, group = "jobs", "Job", "batch"

    def sync(self, key: Key) -> None:
        """Bring a job on, or let its pods go when it is not there any more."""
        super().sync(key)
        if self.api.find(self.plural, key) is None:
            for pod in tuple(self.api.objects("pods")):
                owner = controller_of(pod)
                if namespace_of(pod) == key[0] and owner and (owner["kind"], owner["name"]) == (self.kind, key[1]):
                    self._let_go(pod)

    def reconcile(self, item: Object) -> None:
        """Count what has ended, and start what is missing."""
        spec, status = item["spec"], dict(item.get("status") or {})
        if any(condition(item, kind).get("status") == "True" for kind in ("Complete", "Failed")):
            return
        status.setdefault("startTime", now())
        for pod in self.dependents(item):
            phase = pod["status"].get("phase")
            if phase in FINISHED and _TRACKING in pod["metadata"].get("finalizers", ()):
                status[phase.lower()] = status.get(phase.lower(), 0) + 1
                self._let_go(pod)
        active = [pod for pod in self.dependents(item) if is_active(pod)]
        succeeded, failed = status.get("succeeded", 0), status.get("failed", 0)
        completions, parallelism = spec.get("completions"), spec["parallelism"]
        done = succeeded >= completions if completions is not None else bool(succeeded) and not active
        if failed > spec["backoffLimit"] or done or spec["suspend"]:
            for pod in active:
                self._let_go(pod)
                self.delete(pod)
            active = []
        if failed > spec["backoffLimit"]:
            told = {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
            status["conditions"] = _conditions(status, "FailureTarget", "Failed", **told)
        elif done:
            told = {"reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"}
            status["conditions"] = _conditions(status, "SuccessCriteriaMet", "Complete", **told)
            status["completionTime"] = now()
        elif not spec["suspend"]:
            wanted = parallelism if completions is None else min(parallelism, completions - succeeded)
            if completions is None and succeeded:
                wanted = len(active)
            for _ in range(wanted - len(active)):
                self._create(item)
            active = [pod for pod in self.dependents(item) if is_active(pod)]
        status |= {
            "active": len(active),
            "ready": sum(map(is_ready, active)),
            "uncountedTerminatedPods": {},
            "terminating": 0,
        }
        made = {key: value for key, value in status.items() if value != 0 or key in {"ready", "terminating"}}
        if made != item.get("status"):
            self.api.write_status(self.plural, item, made)

    def _create(self, item: Object) -> None:
        template = item["spec"]["template"]
        metadata = {**(template.get("metadata") or {}), "finalizers": [_TRACKING]}
        self.create_pod({**item, "spec": {**item["spec"], "template": {**template, "metadata": metadata}}})

    def _let_go(self, pod: Object) -> None:
        left = [entry for entry in pod["metadata"].get("finalizers", ()) if entry != _TRACKING]
        if left != pod["metadata"].get("finalizers", []):
            new = with_metadata(pod, finalizers=left or None)
            key = (namespace_of(pod), name_of(pod))
            self.api.update(self.api.registry.built_in("pods"), key, lambda _: new, call=own_call())


def _conditions(status: Object, *kinds: str, reason: str, message: str) -> list[Object]:
    conditions: list[Object] = status.get("conditions") or []
    for kind in kinds:
        conditions = with_condition(conditions, kind, "True", reason=reason, message=message)
    return conditions
