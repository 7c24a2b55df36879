"""What Workspaces run: what matters of their StatefulSets, Services and Jobs."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from provisioner.serving.environment import ServeEnvironment, TuneEnvironment
from provisioner.workspace import services
from provisioner.workspace.digest import ANNOTATION
from provisioner.workspace.inference import start_seconds
from tests.unit.workspace_builders import A100, IMAGE, SELECTOR, UID, inference, tuning, workspace
from tests.unit.workspace_manifests import SERVED, TEMPLATE, THREE, TOKEN, TUNED, job, stateful_set

RENDERED = {f"serving, {name}": stateful_set(**changes) for name, changes in SERVED.items()} | {
    f"tuning, {name}": job(**changes) for name, changes in TUNED.items()
}
# A Workspace of each that says no more than it has to.
NOTHING: dict[Callable[..., dict[str, Any]], dict[str, Any]] = {
    stateful_set: next(iter(SERVED.values())),
    job: next(iter(TUNED.values())),
}
every_one = pytest.mark.parametrize("body", RENDERED.values(), ids=RENDERED)


def spec_of(body: dict[str, Any]) -> dict[str, Any]:
    return dict(body["spec"]["template"]["spec"])


def main(body: dict[str, Any]) -> dict[str, Any]:
    (container,) = spec_of(body)["containers"]
    return dict(container)


def containers(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from spec_of(body).get("initContainers", ())
    yield from spec_of(body)["containers"]


def env_of(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"].replace("$$", "$") for entry in container["env"] if "value" in entry}


def mounts(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


def volumes(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {volume["name"]: volume for volume in spec_of(body)["volumes"]}
    assert len(found) == len(spec_of(body)["volumes"]), "a volume's name is its own"
    return found


# All of them


@every_one
def test_pod_is_restricted(body: dict[str, Any]) -> None:
    spec = spec_of(body)

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for container in containers(body):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert all("hostPath" not in volume for volume in volumes(body).values())


@every_one
def test_pod_asks_for_gpus_and_is_not_the_first_to_be_evicted(body: dict[str, Any]) -> None:
    asked = main(body)["resources"]
    gpus = asked["limits"]["nvidia.com/gpu"]

    assert int(gpus) > 0
    assert asked["requests"]["nvidia.com/gpu"] == gpus
    for container in containers(body):
        requests = container["resources"]["requests"]
        assert {"cpu", "memory"} <= set(requests)


@every_one
def test_pod_writes_where_it_may(body: dict[str, Any]) -> None:
    known = volumes(body)
    for container in containers(body):
        assert {mount["name"] for mount in container["volumeMounts"]} <= set(known)
        assert "/tmp" in mounts(container)  # noqa: S108
    for name in ("HOME", "HF_HOME", "VLLM_CACHE_ROOT"):
        where = env_of(main(body))[name]
        mount = next(found for path, found in mounts(main(body)).items() if where.startswith(path))
        assert not mount.get("readOnly")
    assert known["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}


@pytest.mark.parametrize("render", [stateful_set, job])
def test_pod_finds_its_model_where_it_was_looked_up(render: Callable[..., dict[str, Any]]) -> None:
    mirror = "https://models.example"

    assert env_of(main(render(hub=mirror, **NOTHING[render])))["HF_ENDPOINT"] == mirror
    assert "HF_ENDPOINT" not in env_of(main(render(**NOTHING[render])))


@every_one
def test_pod_runs_on_the_workspaces_nodes(body: dict[str, Any]) -> None:
    required = spec_of(body)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]

    assert {(e["key"], e["operator"], *e["values"]) for e in term["matchExpressions"]} == {
        ("apps", "In", "chat"),
        ("kaito.sh/workspace", "In", "chat"),
        ("kaito.sh/workspacenamespace", "In", "ml"),
    }
    tolerated = {toleration["key"] for toleration in spec_of(body)["tolerations"]}
    assert tolerated == {"sku", "nvidia.com/gpu", "kubernetes.azure.com/scalesetpriority"}


@every_one
def test_object_is_the_workspaces(body: dict[str, Any]) -> None:
    (owner,) = body["metadata"]["ownerReferences"]

    assert (owner["uid"], owner["controller"], owner["apiVersion"]) == (UID, True, "kaito.sh/v1beta1")
    assert body["metadata"]["labels"]["kaito.sh/workspace"] == "chat"
    assert body["metadata"]["namespace"] == "ml"
    assert body["metadata"]["annotations"][ANNOTATION]


@every_one
def test_image_is_pulled_with_the_controllers_secrets(body: dict[str, Any]) -> None:
    assert spec_of(body)["imagePullSecrets"] == [{"name": "registry"}]
    assert {container["image"] for container in containers(body)} == {IMAGE}


@every_one
def test_no_ray_and_no_dashboard(body: dict[str, Any]) -> None:
    ports = [port["containerPort"] for container in containers(body) for port in container.get("ports", ())]

    assert set(ports) <= {5000, 29501}
    assert "ray" not in {word for container in containers(body) for word in container["args"]}


# Serving


@pytest.mark.parametrize(
    ("gib", "seconds"), [(0.0, 1800), (27.31, 1800), (50.0, 1800), (131.42, 3266), (641.3, 10800), (5000.0, 10800)]
)
def test_time_to_start_follows_from_the_weights(gib: float, seconds: int) -> None:
    assert start_seconds(gib) == seconds


def test_probes_of_one_node_ask_the_server() -> None:
    container = main(stateful_set())
    startup = container["startupProbe"]

    assert startup["httpGet"] == {"path": "/health", "port": "http"}
    assert startup["periodSeconds"] * startup["failureThreshold"] == 1800
    assert env_of(container)["VLLM_ENGINE_READY_TIMEOUT_S"] == "1800"
    assert container["ports"] == [{"name": "http", "containerPort": 5000}]
    assert container["args"] == ["serve"]


def test_pods_of_a_group_know_their_leader_and_their_rank() -> None:
    body = stateful_set(resource=THREE)
    container = main(body)
    told = ServeEnvironment.from_env({**env_of(container), "RANK": "1"})
    fields = {e["name"]: e["valueFrom"]["fieldRef"]["fieldPath"] for e in container["env"] if "valueFrom" in e}

    assert body["spec"]["replicas"] == 3
    assert body["spec"]["podManagementPolicy"] == "Parallel"
    assert body["spec"]["serviceName"] == "chat-headless"
    assert (told.nodes, told.pipeline_parallel, told.leader) == (3, 3, "chat-0.chat-headless.ml.svc")
    assert fields == {"POD_IP": "status.podIP", "RANK": "metadata.labels['apps.kubernetes.io/pod-index']"}
    for probe, what in (("startupProbe", "started"), ("livenessProbe", "alive"), ("readinessProbe", "ready")):
        assert container[probe]["exec"] == {"command": ["serving", "check", what]}
        assert "httpGet" not in container[probe]


def test_requests_in_flight_are_answered_before_a_pod_goes() -> None:
    body = stateful_set()
    wait = int(main(body)["lifecycle"]["preStop"]["exec"]["command"][1])

    # The server is given what is left, and is killed by its own parent rather than by the kubelet.
    assert spec_of(body)["terminationGracePeriodSeconds"] >= wait + 60


def test_token_comes_from_its_secret_and_is_nowhere_else() -> None:
    with_token, without = main(stateful_set(spec=inference(preset=TOKEN))), main(stateful_set())
    (entry,) = [entry for entry in with_token["env"] if entry["name"] == "HF_TOKEN"]

    assert entry["valueFrom"] == {"secretKeyRef": {"name": "hf", "key": "HF_TOKEN", "optional": False}}
    assert "HF_TOKEN" not in json.dumps(without)


def test_changed_config_rolls_out() -> None:
    changes = SERVED["config"]
    before, after, same = stateful_set(**changes), stateful_set(config="vllm: {}", **changes), stateful_set(**changes)

    def told(body: dict[str, Any]) -> tuple[object, object]:
        return body["spec"]["template"]["metadata"]["annotations"], body["metadata"]["annotations"][ANNOTATION]

    assert told(before) == told(same)
    assert told(before)[0] != told(after)[0]
    assert told(before)[1] != told(after)[1]
    assert mounts(main(before))["/config"]["readOnly"] is True
    assert volumes(before)["config"]["configMap"]["name"] == "conf"


def test_adapters_come_by_image_and_by_volume_with_their_strengths() -> None:
    body = stateful_set(**SERVED["adapters"])
    (puller,) = spec_of(body)["initContainers"]
    told = ServeEnvironment.from_env(env_of(main(body)))

    assert {adapter.name: adapter.strength for adapter in told.adapters} == {
        "style": Decimal("0.5"),
        "tone": Decimal(1),
    }
    assert puller["args"] == ["pull", "registry.example/style:1", "/adapters/style"]
    assert not mounts(puller)["/adapters/style"].get("readOnly")
    for name in ("style", "tone"):
        assert mounts(main(body))[f"/adapters/{name}"]["readOnly"] is True
    assert mounts(puller)["/registry"]["readOnly"] is True
    assert "/registry" not in mounts(main(body))
    assert volumes(body)["adapter-1"]["persistentVolumeClaim"] == {"claimName": "tone"}
    (source,) = volumes(body)["registry-0"]["projected"]["sources"]
    assert source["secret"]["items"] == [{"key": ".dockerconfigjson", "path": "pull.json"}]


def test_volume_of_the_authors_is_mounted_whatever_it_calls_itself() -> None:
    source = {"name": "tone", "volumeSource": {"name": "shm", "emptyDir": {}}}

    assert volumes(stateful_set(spec=inference(adapters=[{"source": source}])))["adapter-0"]["emptyDir"] == {}


def test_nothing_of_the_authors_is_taken_for_a_variable() -> None:
    source = {"name": "style", "image": "registry.example/$(HF_TOKEN):1"}
    (puller,) = spec_of(stateful_set(spec=inference(adapters=[{"source": source}])))["initContainers"]
    url = "https://data.example/$web/$$a/$(HF_TOKEN)"
    (data,) = spec_of(job(spec=tuning(input={"urls": [url]})))["initContainers"]
    (given,) = [entry["value"] for entry in data["env"] if entry["name"] == "DATA_URLS"]

    assert puller["args"][1] == "registry.example/$$(HF_TOKEN):1"
    assert given == json.dumps([url]).replace("$", "$$")


@pytest.mark.parametrize(
    ("named", "served"),
    [
        ("phi-4", ("phi-4", "microsoft/phi-4")),
        ("microsoft/Phi-4", ("phi-4", "microsoft/Phi-4", "microsoft/phi-4")),
        ("acme/tiny", ("tiny", "acme/tiny")),
    ],
)
def test_model_is_served_under_its_names(named: str, served: tuple[str, ...]) -> None:
    told = ServeEnvironment.from_env(env_of(main(stateful_set(spec=inference(preset={"name": named})))))

    assert told.served_names == served


def test_model_of_the_hub_is_served_at_the_revision_that_was_looked_up() -> None:
    told = ServeEnvironment.from_env(env_of(main(stateful_set(spec=inference(preset={"name": "acme/tiny"})))))

    assert (told.model, told.revision) == ("acme/tiny", "0123456789abcdef0123456789abcdef01234567")


@pytest.mark.parametrize(
    ("size", "dtype"), [("Standard_NC6s_v3", "half"), ("Standard_NC4as_T4_v3", "half"), (A100, "")]
)
def test_old_gpus_calculate_in_halves(size: str, dtype: str) -> None:
    preset = {"name": "phi-3-mini-4k-instruct"}
    body = stateful_set(resource={"labelSelector": SELECTOR, "instanceType": size}, spec=inference(preset=preset))

    assert ServeEnvironment.from_env(env_of(main(body))).dtype == dtype


def test_template_is_kept_as_it_is_written_and_given_its_nodes() -> None:
    body = stateful_set(spec=inference(template=TEMPLATE))
    spec, metadata = spec_of(body), body["spec"]["template"]["metadata"]

    assert spec["containers"] == TEMPLATE["spec"]["containers"]
    assert spec["serviceAccountName"] == "mine"
    assert set(spec) == {*TEMPLATE["spec"], "affinity"}
    assert spec["tolerations"][0] == {"key": "team", "operator": "Exists"}
    assert len(spec["tolerations"]) == 4
    assert metadata["labels"]["app"] == "mine"
    assert metadata["labels"]["kaito.sh/workspace"] == "chat"
    assert metadata["annotations"] == {"a": "b"}


def test_template_with_an_affinity_of_its_own_runs_on_the_workspaces_nodes_all_the_same() -> None:
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    zones = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in "12"]
    preferred = [{"weight": 1, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}]
    of_nodes = {required: {"nodeSelectorTerms": zones}, "preferredDuringSchedulingIgnoredDuringExecution": preferred}
    affinity = {"nodeAffinity": of_nodes, "podAntiAffinity": {required: []}}
    found = spec_of(stateful_set(spec=inference(template={"spec": {"affinity": affinity}})))["affinity"]
    terms = found["nodeAffinity"][required]["nodeSelectorTerms"]

    assert [{e["key"] for e in term["matchExpressions"]} for term in terms] == [
        {"zone", "apps", "kaito.sh/workspace", "kaito.sh/workspacenamespace"}
    ] * 2
    assert found["podAntiAffinity"] == affinity["podAntiAffinity"]
    assert found["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] == preferred


def test_partition_takes_a_part_of_a_nodes_gpus() -> None:
    resource = {
        "labelSelector": SELECTOR,
        "instanceType": "Standard_ND96isr_H100_v5",
        "partition": {"mode": "accelerator", "count": 2},
    }

    assert main(stateful_set(resource=resource))["resources"]["limits"] == {"nvidia.com/gpu": "2"}


# Services


@pytest.mark.parametrize(
    ("annotations", "kind"),
    [({}, "ClusterIP"), ({"kaito.sh/enablelb": "True"}, "LoadBalancer"), ({"kaito.sh/enablelb": "false"}, "ClusterIP")],
)
def test_clients_reach_the_model_and_nothing_else(annotations: dict[str, str], kind: str) -> None:
    client, headless = (dict(one.body) for one in services.render(workspace(annotations=annotations)))

    assert client["spec"]["type"] == kind
    assert [(port["port"], port["targetPort"]) for port in client["spec"]["ports"]] == [(80, 5000)]
    assert client["spec"]["selector"] == {
        "kaito.sh/workspace": "chat",
        "statefulset.kubernetes.io/pod-name": "chat-0",
    }
    assert "publishNotReadyAddresses" not in client["spec"]
    assert headless["metadata"]["name"] == "chat-headless"
    assert headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["publishNotReadyAddresses"] is True
    assert services.endpoint(workspace()) == "http://chat.ml.svc"


def test_any_pod_of_a_template_answers() -> None:
    client, _ = services.render(workspace(spec=inference(template=TEMPLATE)))

    assert client.body["spec"]["selector"] == {"kaito.sh/workspace": "chat"}


# Tuning


@pytest.mark.parametrize("name", TUNED)
def test_data_and_results_are_where_the_program_looks(name: str) -> None:
    body = job(**TUNED[name])
    container = main(body)
    told = TuneEnvironment.from_env(env_of(container))
    brought = spec_of(body).get("initContainers", [])

    assert mounts(container)["/data"]["readOnly"] is True
    assert not mounts(container)["/results"].get("readOnly")
    assert told.method == "qlora"
    assert told.urls == ()
    if name.startswith("volume"):
        assert brought == []
    else:
        assert brought[0]["args"][0] == ("pull" if name.startswith("image") else "fetch")
        assert not mounts(brought[0])["/data"].get("readOnly")
    if name.endswith("volume"):
        assert "persistentVolumeClaim" in volumes(body)["results"]
        assert (told.image, "/registry" in mounts(container)) == ("", False)
    else:
        assert (told.image, "/registry" in mounts(container)) == ("registry.example/adapter:1", True)


def test_job_goes_on_after_a_crash_and_is_not_run_twice_at_once() -> None:
    body = job(**TUNED["urls to image"])

    assert spec_of(body)["restartPolicy"] == "OnFailure"
    assert body["spec"]["podReplacementPolicy"] == "Failed"
    assert (body["spec"]["completions"], body["spec"]["parallelism"]) == (1, 1)
    assert "ttlSecondsAfterFinished" not in body["spec"]


def test_job_is_another_by_its_wish_and_not_by_its_image() -> None:
    def digest(body: dict[str, Any]) -> str:
        return str(body["metadata"]["annotations"][ANNOTATION])

    first = digest(job(**TUNED["config"]))

    assert digest(job(image="registry.example/serving:next", **TUNED["config"])) == first
    assert digest(job(config="training_config: {}", **TUNED["config"])) != first
    assert digest(job(spec=tuning(config="conf", method="lora"))) != first
