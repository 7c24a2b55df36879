"""An unmodified kubectl, as a person would use it."""

import contextlib
import json
import queue
import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from fakes.cluster.interface import ControlPlane
from tests.semantics.client import Kube, Object, unique
from tests.semantics.things import NODES, THINGS, config_map, path, pod, template, thing

Kubectl = Callable[..., str]

# Seconds for a line of a kubectl that follows; it takes far less than one.
FOLLOWING = 10.0


@pytest.fixture
def kubectl(cluster: ControlPlane, kube: Kube) -> Kubectl:
    if cluster.kubectl is None:
        pytest.skip("no kubectl on the PATH, and none built: run `make control-plane`")
    return cluster.run_kubectl


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Object], str]:
    """Return a function that writes a manifest and returns the option that names it."""

    def write(body: Object) -> str:
        file = tmp_path / "manifest.yaml"
        file.write_text(yaml.safe_dump(body))
        return f"--filename={file}"

    return write


def stateful_set(image: str, name: str) -> Object:
    made = template()
    made["spec"]["containers"] = [{"name": "main", "image": image, "env": [{"name": "A", "value": image}]}]
    made["metadata"]["labels"] = {"app": name}
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": made}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": spec}


def test_applying_creates_configures_and_leaves_alone(kubectl: Kubectl, write: Callable[[Object], str]) -> None:
    body = thing()
    told = f"thing.semantics.example/{body['metadata']['name']}"
    assert kubectl("apply", write(body)) == f"{told} created\n"
    assert kubectl("apply", write(body)) == f"{told} unchanged\n"
    body["spec"]["size"] = 2
    assert kubectl("apply", write(body)) == f"{told} configured\n"
    del body["spec"]["size"]
    with pytest.raises(RuntimeError, match=r"spec\.size: Required value"):
        kubectl("apply", write(body))


def test_applying_merges_built_in_kinds(kubectl: Kubectl, write: Callable[[Object], str], kube: Kube) -> None:
    name = unique("web")
    kubectl("apply", write(stateful_set("a:1", name)))
    where = f"/apis/apps/v1/namespaces/default/statefulsets/{name}"
    kube.patch(where, {"spec": {"template": {"spec": {"hostname": "by-another"}}}})
    assert kubectl("apply", write(stateful_set("a:2", name))) == f"statefulset.apps/{name} configured\n"
    spec = kube.get(where)["spec"]["template"]["spec"]
    assert (spec["containers"][0]["image"], spec["hostname"]) == ("a:2", "by-another")


def test_mistyped_manifest_is_refused(kubectl: Kubectl, write: Callable[[Object], str]) -> None:
    for body in ({**config_map(), "dataa": {}}, thing(spec={"colour": "red"})):
        with pytest.raises(RuntimeError, match="unknown field"):
            kubectl("apply", write(body))


def test_applying_on_the_server_conflicts_and_is_forced(kubectl: Kubectl, write: Callable[[Object], str]) -> None:
    body = thing()
    name = body["metadata"]["name"]
    assert "serverside-applied" in kubectl("apply", "--server-side", write(body))
    kubectl("patch", "thing", name, "--type=merge", '--patch={"spec":{"size":5}}', "--field-manager=other")
    with pytest.raises(RuntimeError, match=r'conflict with "other".*: \.spec\.size'):
        kubectl("apply", "--server-side", write(body))
    kubectl("apply", "--server-side", "--force-conflicts", write(body))
    assert kubectl("get", "thing", name, "--output=jsonpath={.spec.size}") == "1"


def test_difference_is_shown(kubectl: Kubectl, write: Callable[[Object], str], cluster: ControlPlane) -> None:
    body = thing()
    kubectl("apply", write(body))
    assert kubectl("diff", write(body)) == ""
    body["spec"]["size"] = 7
    arguments = [str(cluster.kubectl), f"--kubeconfig={cluster.kubeconfig}", "diff", write(body)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert re.search(r"^-  size: 1$\n^\+  size: 7$", result.stdout, re.MULTILINE)


def test_things_are_shown_in_columns(kubectl: Kubectl, kube: Kube) -> None:
    made = kube.create(THINGS, thing(labels={"topology.example/zone": "z1"}))
    name = made["metadata"]["name"]
    header, row = kubectl("get", "things", name).splitlines()
    assert header.split() == ["NAME", "SIZE", "READY", "AGE"]
    assert row.split()[:2] == [name, "1"]
    header, row = kubectl("get", "th", name, "--output=wide").splitlines()
    assert header.split() == ["NAME", "SIZE", "READY", "ZONE", "AGE"]
    assert "z1" in row
    assert yaml.safe_load(kubectl("get", "thing", name, "--output=yaml"))["metadata"]["uid"] == made["metadata"]["uid"]
    assert name in kubectl("get", "semantic", "--output=name")


def test_nodes_and_pods_are_shown(kubectl: Kubectl, kube: Kube, node: Object, namespace: str) -> None:
    name = node["metadata"]["name"]
    header, row = kubectl("get", "node", name).splitlines()
    assert (header.split(), row.split()[:3]) == (
        ["NAME", "STATUS", "ROLES", "AGE", "VERSION"],
        [name, "Ready", "<none>"],
    )
    pods = f"/api/v1/namespaces/{namespace}/pods"
    made = kube.create(pods, pod(nodeName=name))
    header, row = kubectl("get", "pods", f"--namespace={namespace}", "--output=wide").splitlines()
    assert header.split()[:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == [made["metadata"]["name"], "0/1", "Pending", "0"]
    assert name in row


def test_objects_are_described(kubectl: Kubectl, kube: Kube, node: Object) -> None:
    made = kube.create(THINGS, thing())
    text = kubectl("describe", "thing", made["metadata"]["name"])
    assert re.search(r"^Kind: +Thing$", text, re.MULTILINE)
    assert re.search(r"^Events: +<none>$", text, re.MULTILINE)
    text = kubectl("describe", "node", node["metadata"]["name"])
    assert re.search(r"^ +nvidia.com/gpu: +1$", text, re.MULTILINE)
    assert "Non-terminated Pods" in text


def test_fields_are_explained(kubectl: Kubectl) -> None:
    assert "A Thing has a size." in kubectl("explain", "thing")
    assert re.search(r"^FIELD: size <integer>", kubectl("explain", "thing.spec.size"), re.MULTILINE)
    assert "image" in kubectl("explain", "pod.spec.containers")


def test_labels_annotations_taints_and_cordons_are_set(kubectl: Kubectl, kube: Kube, node: Object) -> None:
    name = node["metadata"]["name"]
    kubectl("label", "node", name, "team=red")
    kubectl("annotate", "node", name, "note=x")
    kubectl("taint", "node", name, "gpu=only:NoSchedule")
    kubectl("cordon", name)
    seen = kube.get(path(NODES, node))
    assert (seen["metadata"]["labels"]["team"], seen["metadata"]["annotations"]["note"]) == ("red", "x")
    assert {"key": "gpu", "value": "only", "effect": "NoSchedule"} in seen["spec"]["taints"]
    assert seen["spec"]["unschedulable"] is True
    assert "Ready,SchedulingDisabled" in kubectl("get", "node", name)
    kubectl("uncordon", name)
    kubectl("taint", "node", name, "gpu-")
    seen = kube.get(path(NODES, node))
    assert "gpu" not in {taint["key"] for taint in seen["spec"]["taints"]}


def test_conditions_and_deletions_are_waited_for(kubectl: Kubectl, kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    name = made["metadata"]["name"]
    kubectl("patch", "thing", name, "--subresource=status", "--type=merge", f"--patch={json.dumps(READY)}")
    assert kubectl("wait", "--for=condition=Ready", f"thing/{name}", "--timeout=10s").endswith("condition met\n")
    assert "deleted" in kubectl("delete", "thing", name)
    kubectl("wait", "--for=delete", f"thing/{name}", "--timeout=10s")


READY = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}


class Following:
    """A kubectl that does not end by itself: its lines as they come, and all that it has said, its log too."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        assert process.stdout is not None
        assert process.stderr is not None
        for stream, keep in ((process.stdout, self._lines.put), (process.stderr, self.said.append)):
            threading.Thread(target=self._read, args=(stream, keep), daemon=True).start()

    def line(self) -> list[str]:
        """Return the words of the next line; fail with all that was said."""
        with contextlib.suppress(queue.Empty):
            self.said.append(self._lines.get(timeout=FOLLOWING))
            return self.said[-1].split()
        raise AssertionError(f"no further line within {FOLLOWING:g} s; so far: {''.join(self.said)}")

    @staticmethod
    def _read(stream: Iterable[str], keep: Callable[[str], None]) -> None:
        for line in stream:
            keep(line)


@contextlib.contextmanager
def following(cluster: ControlPlane, *arguments: str) -> Iterator[Following]:
    """Run a kubectl that does not end by itself, with a log of its requests."""
    command = [str(cluster.kubectl), f"--kubeconfig={cluster.kubeconfig}", "-v=6", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Following(process)
        finally:
            process.kill()


def test_changes_are_followed(kubectl: Kubectl, kube: Kube, cluster: ControlPlane) -> None:
    made = kube.create(THINGS, thing())
    # By field and not by name: of a name kubectl leaves out the state that its watch begins with.
    of_it = f"--field-selector=metadata.name={made['metadata']['name']}"
    with following(cluster, "get", "thing", of_it, "--watch") as shown:
        assert shown.line() == ["NAME", "SIZE", "READY", "AGE"]
        assert shown.line()[1] == "1"
        kube.patch(path(THINGS, made), {"spec": {"size": 2}})
        assert shown.line()[1] == "2"


def test_resources_are_listed(kubectl: Kubectl) -> None:
    lines = kubectl("api-resources", "--api-group=semantics.example", "--no-headers").splitlines()
    things = next(line.split() for line in lines if line.startswith("things "))
    assert things == ["things", "th", "semantics.example/v1", "true", "Thing"]


def test_logs_of_what_never_ran_are_not_there(kubectl: Kubectl, kube: Kube, namespace: str, node: Object) -> None:
    made = kube.create(f"/api/v1/namespaces/{namespace}/pods", pod(nodeName=node["metadata"]["name"]))
    with pytest.raises(RuntimeError, match="Error from server"):
        kubectl("logs", made["metadata"]["name"], f"--namespace={namespace}")
