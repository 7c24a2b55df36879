"""Controllers of pods: StatefulSets, DaemonSets and Jobs."""

from typing import Any

import pytest

from tests.semantics.client import Kube, Object, condition, eventually, is_true, names, unique
from tests.semantics.things import path, template


@pytest.fixture
def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def collection(namespace: str, plural: str, group: str = "apps") -> str:
    return f"/apis/{group}/v1/namespaces/{namespace}/{plural}"


def workload(node: Object | None, **spec: Any) -> Object:
    """An object with a template and the selector that fits it."""
    made = template(node)
    selector = {"matchLabels": made["metadata"]["labels"]}
    return {"metadata": {"name": unique("w")}, "spec": {"selector": selector, "template": made, **spec}}


def job(node: Object | None = None, **spec: Any) -> Object:
    return {"metadata": {"name": unique("job")}, "spec": {"template": template(node, restartPolicy="Never"), **spec}}


def report(kube: Kube, pods: str, name: str, phase: str) -> None:
    """Say of a pod what its kubelet would say."""
    ready = [{"type": "Ready", "status": str(phase == "Running")}]
    kube.patch(f"{pods}/{name}/status", {"status": {"phase": phase, "conditions": ready}})


def wait_pods(kube: Kube, pods: str, count: int) -> list[str]:
    """Wait until there are so many pods; return their names."""
    return eventually(lambda: names(kube.get(pods)), until=lambda found: len(found) == count)


def test_selector_has_to_fit_the_template(kube: Kube, namespace: str) -> None:
    body = workload(None, replicas=1)
    body["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    for plural in ("statefulsets", "daemonsets"):
        answer = kube.ask("POST", collection(namespace, plural), body)
        assert (answer.code, answer.fields()) == (422, {"spec.template.metadata.labels"})


def test_stateful_set_makes_one_pod_after_the_other(kube: Kube, namespace: str, pods: str) -> None:
    sets = collection(namespace, "statefulsets")
    body = workload(None, replicas=2, serviceName="w")
    base = body["metadata"]["name"]
    kube.create(sets, body)
    assert wait_pods(kube, pods, 1) == [f"{base}-0"]
    labels = kube.get(f"{pods}/{base}-0")["metadata"]["labels"]
    assert labels["statefulset.kubernetes.io/pod-name"] == f"{base}-0"
    assert labels["apps.kubernetes.io/pod-index"] == "0"
    report(kube, pods, f"{base}-0", "Running")
    assert wait_pods(kube, pods, 2) == [f"{base}-0", f"{base}-1"]
    report(kube, pods, f"{base}-1", "Running")
    eventually(lambda: kube.get(path(sets, body))["status"].get("readyReplicas"), until=lambda ready: ready == 2)
    kube.delete(f"{pods}/{base}-0")
    assert wait_pods(kube, pods, 2) == [f"{base}-0", f"{base}-1"]
    kube.patch(path(sets, body), {"spec": {"replicas": 0}})
    wait_pods(kube, pods, 0)


def test_parallel_stateful_set_makes_and_deletes_all_pods_at_once(kube: Kube, namespace: str, pods: str) -> None:
    sets = collection(namespace, "statefulsets")
    body = workload(None, replicas=3, serviceName="w", podManagementPolicy="Parallel")
    base = body["metadata"]["name"]
    kube.create(sets, body)
    # None of them is ready.
    assert wait_pods(kube, pods, 3) == [f"{base}-0", f"{base}-1", f"{base}-2"]
    kube.patch(path(sets, body), {"spec": {"replicas": 1}})
    assert wait_pods(kube, pods, 1) == [f"{base}-0"]
    answer = kube.ask(
        "PATCH",
        path(sets, body),
        {"spec": {"podManagementPolicy": "OrderedReady"}},
        content_type="application/merge-patch+json",
    )
    assert answer.code == 422


def test_stateful_set_replaces_a_pod_of_an_old_template(kube: Kube, namespace: str, pods: str) -> None:
    sets = collection(namespace, "statefulsets")
    body = workload(None, replicas=1, serviceName="w")
    kube.create(sets, body)
    (name,) = wait_pods(kube, pods, 1)
    report(kube, pods, name, "Running")
    before = kube.get(f"{pods}/{name}")["metadata"]["uid"]
    containers = [{"name": "main", "image": "busybox:2"}]
    kube.patch(path(sets, body), {"spec": {"template": {"spec": {"containers": containers}}}})

    def replaced() -> bool:
        found = kube.find(f"{pods}/{name}")
        return found is not None and found["metadata"]["uid"] != before

    eventually(replaced)
    assert kube.get(f"{pods}/{name}")["spec"]["containers"][0]["image"] == "busybox:2"


def test_daemon_set_has_a_pod_on_each_node_that_it_may_use(kube: Kube, namespace: str, pods: str, node: Object) -> None:
    sets = collection(namespace, "daemonsets")
    made = kube.create(sets, workload(node))
    (name,) = wait_pods(kube, pods, 1)
    here = node["metadata"]["name"]
    eventually(lambda: kube.get(f"{pods}/{name}")["spec"].get("nodeName"), until=lambda at: at == here)
    spec = kube.get(f"{pods}/{name}")["spec"]
    tolerated = {(t.get("key"), t.get("effect")) for t in spec["tolerations"] if "tolerationSeconds" not in t}
    assert tolerated >= {
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    }
    report(kube, pods, name, "Running")
    eventually(lambda: kube.get(path(sets, made))["status"].get("numberReady"), until=lambda ready: ready == 1)
    kube.patch(f"/api/v1/nodes/{here}", {"metadata": {"labels": {"node": None}}})
    eventually(lambda: kube.get(f"{pods}/{name}")["metadata"].get("deletionTimestamp"))


def test_daemon_set_leaves_out_nodes_that_it_does_not_tolerate(
    kube: Kube, namespace: str, pods: str, node: Object
) -> None:
    sets = collection(namespace, "daemonsets")
    body = workload(node)
    body["spec"]["template"]["spec"]["tolerations"] = []
    made = kube.create(sets, body)
    seen = eventually(
        lambda: kube.get(path(sets, made))["status"], until=lambda status: status.get("observedGeneration") == 1
    )
    assert seen["desiredNumberScheduled"] == 0
    assert names(kube.get(pods)) == []


def test_job_is_complete_when_its_pods_have_succeeded(kube: Kube, namespace: str, pods: str) -> None:
    jobs = collection(namespace, "jobs", "batch")
    made = kube.create(jobs, job(completions=2, parallelism=1))
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert (labels["job-name"], labels["controller-uid"]) == (made["metadata"]["name"], made["metadata"]["uid"])
    (first,) = wait_pods(kube, pods, 1)
    report(kube, pods, first, "Succeeded")
    (second,) = set(wait_pods(kube, pods, 2)) - {first}
    report(kube, pods, second, "Succeeded")
    done = eventually(lambda: kube.get(path(jobs, made)), until=is_true("Complete"))
    assert done["status"]["succeeded"] == 2
    assert done["status"]["completionTime"]
    assert not done["status"].get("active")


def test_job_fails_when_too_many_pods_have(kube: Kube, namespace: str, pods: str) -> None:
    jobs = collection(namespace, "jobs", "batch")
    made = kube.create(jobs, job(backoffLimit=0))
    (name,) = wait_pods(kube, pods, 1)
    report(kube, pods, name, "Failed")
    done = eventually(lambda: kube.get(path(jobs, made)), until=is_true("Failed"))
    assert done["status"]["failed"] == 1
    assert condition(done, "Failed")["reason"] == "BackoffLimitExceeded"
    assert names(kube.get(pods)) == [name]


def test_job_that_is_suspended_has_no_pods(kube: Kube, namespace: str, pods: str) -> None:
    jobs = collection(namespace, "jobs", "batch")
    made = kube.create(jobs, job(suspend=True))
    other = kube.create(jobs, job())
    (name,) = wait_pods(kube, pods, 1)
    assert name.startswith(other["metadata"]["name"])
    kube.patch(path(jobs, made), {"spec": {"suspend": False}})
    wait_pods(kube, pods, 2)


def test_pods_of_a_job_end_and_its_template_is_fixed(kube: Kube, namespace: str) -> None:
    jobs = collection(namespace, "jobs", "batch")
    endless = {"metadata": {"name": unique("job")}, "spec": {"template": template(restartPolicy="Always")}}
    answer = kube.ask("POST", jobs, endless)
    assert (answer.code, answer.fields()) == (422, {"spec.template.spec.restartPolicy"})
    made = kube.create(jobs, job(suspend=False))
    body = {"spec": {"completions": 5}}
    answer = kube.ask("PATCH", path(jobs, made), body, content_type="application/merge-patch+json")
    assert (answer.code, answer.fields()) == (422, {"spec.completions"})
