"""Objects are created, read and replaced one by one; the server keeps the books."""

import pytest

from tests.semantics.client import MERGE, Kube, Object, unique
from tests.semantics.things import CONFIG_MAPS, NODES, THINGS, config_map, path, pod, thing


def version(item: Object) -> int:
    return int(item["metadata"]["resourceVersion"])


def test_new_object_has_what_the_server_adds(kube: Kube) -> None:
    answer = kube.ask("POST", THINGS, thing("added", labels={"a": "b"}))
    assert answer.code == 201
    metadata = answer.body["metadata"]
    assert (metadata["name"], metadata["namespace"], metadata["labels"]) == ("added", "default", {"a": "b"})
    assert len(metadata["uid"]) == 36
    assert metadata["generation"] == 1
    assert metadata["creationTimestamp"].endswith("Z")
    assert version(answer.body) > 0
    read = kube.get(f"{THINGS}/added")
    assert (read["kind"], read["apiVersion"]) == ("Thing", "semantics.example/v1")
    assert read["metadata"]["uid"] == metadata["uid"]


def test_not_every_kind_counts_generations(kube: Kube) -> None:
    assert "generation" not in kube.create(CONFIG_MAPS, config_map())["metadata"]


def test_one_counter_gives_versions_to_all_kinds(kube: Kube) -> None:
    first = kube.create(CONFIG_MAPS, config_map())
    second = kube.create(THINGS, thing())
    third = kube.create(CONFIG_MAPS, config_map())
    assert version(first) < version(second) < version(third)


def test_names_are_generated(kube: Kube) -> None:
    body = {"metadata": {"generateName": "made-"}}
    made = {kube.create(CONFIG_MAPS, body)["metadata"]["name"] for _ in range(3)}
    assert len(made) == 3
    assert all(name.startswith("made-") and len(name) == len("made-") + 5 for name in made)


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        pytest.param({}, "metadata.name", id="no name"),
        pytest.param({"name": "A_B"}, "metadata.name", id="odd name"),
        pytest.param({"name": "ok", "labels": {"a b": "c"}}, "metadata.labels", id="odd label"),
        pytest.param({"name": "ok", "labels": {"a": "b c"}}, "metadata.labels", id="odd label value"),
    ],
)
def test_odd_metadata_is_invalid(kube: Kube, metadata: Object, field: str) -> None:
    answer = kube.ask("POST", CONFIG_MAPS, {"metadata": metadata})
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert answer.fields() == {field}
    assert answer.message.startswith("ConfigMap ")


def test_name_is_taken_once(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    answer = kube.ask("POST", THINGS, thing(made["metadata"]["name"]))
    assert (answer.code, answer.reason) == (409, "AlreadyExists")
    assert answer.message == f'things.semantics.example "{made["metadata"]["name"]}" already exists'
    assert answer.body["details"]["group"] == "semantics.example"


def test_missing_object_is_not_found(kube: Kube) -> None:
    answer = kube.ask("GET", f"{CONFIG_MAPS}/nobody")
    assert (answer.code, answer.reason) == (404, "NotFound")
    assert answer.body["status"] == "Failure"
    assert answer.body["details"] == {"name": "nobody", "kind": "configmaps"}
    for method, body in (("PUT", config_map("nobody")), ("PATCH", {}), ("DELETE", None)):
        assert kube.ask(method, f"{CONFIG_MAPS}/nobody", body, content_type=MERGE).code in {404, 415}
    assert kube.ask("DELETE", f"{CONFIG_MAPS}/nobody").code == 404


def test_namespace_has_to_exist(kube: Kube) -> None:
    answer = kube.ask("POST", "/api/v1/namespaces/nowhere/configmaps", config_map())
    assert (answer.code, answer.message) == (404, 'namespaces "nowhere" not found')


def test_namespace_of_object_and_path_agree(kube: Kube) -> None:
    assert kube.ask("POST", CONFIG_MAPS, config_map(namespace="kube-system")).code == 400


def test_unknown_paths_and_resources_are_told_apart(kube: Kube) -> None:
    assert kube.ask("GET", "/nope").body == "404 page not found\n"
    assert kube.ask("GET", "/apis/nope.example/v1/nopes").body == "404 page not found\n"
    answer = kube.ask("GET", "/api/v1/nopes")
    assert (answer.code, answer.message) == (404, "the server could not find the requested resource")


def test_method_that_makes_no_sense_is_not_allowed(kube: Kube) -> None:
    made = kube.create(CONFIG_MAPS, config_map())
    assert kube.ask("PUT", CONFIG_MAPS, config_map()).code == 405
    answer = kube.ask("POST", path(CONFIG_MAPS, made), config_map())
    assert (answer.code, answer.reason) == (405, "MethodNotAllowed")


def test_body_of_another_type_is_unsupported(kube: Kube) -> None:
    answer = kube.ask("POST", CONFIG_MAPS, config_map(), content_type="text/plain")
    assert (answer.code, answer.reason) == (415, "UnsupportedMediaType")


def test_body_may_be_yaml(kube: Kube) -> None:
    name = unique("yaml")
    answer = kube.ask(
        "POST", CONFIG_MAPS, f"metadata: {{name: {name}}}\ndata: {{a: b}}", content_type="application/yaml"
    )
    assert (answer.code, answer.body["data"]) == (201, {"a": "b"})


def test_body_that_is_no_json_is_a_bad_request(kube: Kube) -> None:
    assert kube.ask("POST", CONFIG_MAPS, "{").code == 400


def test_kind_of_body_and_path_agree(kube: Kube) -> None:
    assert kube.ask("POST", CONFIG_MAPS, {**config_map(), "kind": "Secret"}).code == 400
    assert kube.ask("POST", CONFIG_MAPS, {**config_map(), "apiVersion": "v2"}).code == 400
    assert kube.ask("POST", THINGS, {**thing(), "kind": "Other"}).code == 422
    assert kube.ask("POST", THINGS, {**thing(), "apiVersion": "semantics.example/v2"}).code == 400


def test_custom_resources_say_what_they_are_and_built_in_ones_need_not(kube: Kube) -> None:
    assert kube.ask("POST", CONFIG_MAPS, {"metadata": {"name": unique()}}).code == 201
    anonymous = {key: value for key, value in thing().items() if key != "kind"}
    answer = kube.ask("POST", THINGS, anonymous)
    assert answer.code == 400
    assert "Object 'Kind' is missing" in answer.message


def test_new_object_carries_no_version(kube: Kube) -> None:
    answer = kube.ask("POST", CONFIG_MAPS, config_map(resourceVersion="5"))
    assert answer.message == "resourceVersion should not be set on objects to be created"


def test_replacing_takes_the_whole_object(kube: Kube) -> None:
    made = kube.create(CONFIG_MAPS, config_map(data={"a": "1", "b": "2"}))
    made["data"] = {"c": "3"}
    replaced = kube.replace(path(CONFIG_MAPS, made), made)
    assert replaced["data"] == {"c": "3"}
    assert version(replaced) > version(made)
    assert replaced["metadata"]["uid"] == made["metadata"]["uid"]


def test_replacing_an_old_version_is_a_conflict(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    kube.patch(path(THINGS, made), {"spec": {"size": 2}})
    answer = kube.ask("PUT", path(THINGS, made), made)
    assert (answer.code, answer.reason) == (409, "Conflict")
    assert "the object has been modified; please apply your changes to the latest version" in answer.message


def test_replacing_without_a_version_is_for_built_in_kinds_only(kube: Kube) -> None:
    plain = config_map(data={"a": "1"})
    kube.create(CONFIG_MAPS, plain)
    assert kube.ask("PUT", path(CONFIG_MAPS, plain), plain).code == 200
    custom = thing()
    kube.create(THINGS, custom)
    answer = kube.ask("PUT", path(THINGS, custom), custom)
    assert (answer.code, answer.fields()) == (422, {"metadata.resourceVersion"})


def test_replacing_under_another_name_or_uid_is_refused(kube: Kube) -> None:
    made = kube.create(CONFIG_MAPS, config_map())
    assert kube.ask("PUT", path(CONFIG_MAPS, made), config_map("other")).code == 400
    other = config_map(made["metadata"]["name"], uid="00000000-0000-0000-0000-000000000000")
    answer = kube.ask("PUT", path(CONFIG_MAPS, made), other)
    assert answer.code == 409
    assert "Precondition failed: UID in precondition" in answer.message


def test_write_that_changes_nothing_leaves_the_version(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    assert version(kube.patch(path(THINGS, made), {"spec": {"size": 1}})) == version(made)
    assert version(kube.replace(path(THINGS, made), made)) == version(made)


def test_metadata_of_the_server_cannot_be_changed(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    changed = kube.patch(path(THINGS, made), {"metadata": {"generation": 7, "labels": {"a": "b"}}})
    assert changed["metadata"]["generation"] == 1
    for field, value in (("uid", "other"), ("deletionTimestamp", "2020-01-01T00:00:00Z")):
        answer = kube.ask("PATCH", path(THINGS, made), {"metadata": {field: value}}, content_type=MERGE)
        assert (answer.code, answer.fields()) == (422, {f"metadata.{field}"})


def test_generation_counts_changes_of_the_wish(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    where = path(THINGS, made)
    assert kube.patch(where, {"metadata": {"annotations": {"a": "b"}}})["metadata"]["generation"] == 1
    assert kube.patch(f"{where}/status", {"status": {"phase": "x"}})["metadata"]["generation"] == 1
    assert kube.patch(where, {"spec": {"size": 2}})["metadata"]["generation"] == 2


def test_status_is_not_written_with_the_object(kube: Kube) -> None:
    made = kube.create(THINGS, {**thing(), "status": {"phase": "wished"}})
    assert "status" not in made
    where = path(THINGS, made)
    kube.patch(f"{where}/status", {"status": {"phase": "reported"}})
    assert kube.patch(where, {"status": {"phase": "wished"}, "spec": {"size": 2}})["status"] == {"phase": "reported"}
    assert kube.replace(where, {**kube.get(where), "status": {}})["status"] == {"phase": "reported"}


def test_object_is_not_written_with_its_status(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    body = {"metadata": {"labels": {"a": "b"}}, "spec": {"size": 5}, "status": {"phase": "x"}}
    written = kube.patch(f"{path(THINGS, made)}/status", body)
    assert written["spec"]["size"] == 1
    assert "labels" not in written["metadata"]
    assert written["status"] == {"phase": "x"}


def test_status_of_a_node_takes_labels_along_and_no_spec(kube: Kube, node: Object) -> None:
    body = {"metadata": {"labels": {"a": "b"}}, "spec": {"unschedulable": True}, "status": {"phase": "Running"}}
    written = kube.patch(f"{path(NODES, node)}/status", body)
    assert written["metadata"]["labels"]["a"] == "b"
    assert "unschedulable" not in written["spec"]


def test_status_is_read_under_its_own_path(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    assert kube.get(f"{path(THINGS, made)}/status")["metadata"]["uid"] == made["metadata"]["uid"]
    plain = kube.create(CONFIG_MAPS, config_map())
    assert kube.ask("GET", f"{path(CONFIG_MAPS, plain)}/status").code == 404


def test_dry_run_keeps_nothing(kube: Kube) -> None:
    body = thing()
    tried = kube.create(f"{THINGS}?dryRun=All", body)
    assert tried["spec"]["mode"] == "A"
    assert kube.find(path(THINGS, body)) is None
    made = kube.create(THINGS, body)
    assert kube.patch(f"{path(THINGS, made)}?dryRun=All", {"spec": {"size": 4}})["spec"]["size"] == 4
    kube.delete(f"{path(THINGS, made)}?dryRun=All")
    assert kube.get(path(THINGS, made))["spec"]["size"] == 1


def test_value_of_a_wrong_type_cannot_be_decoded(kube: Kube) -> None:
    assert kube.ask("POST", CONFIG_MAPS, {"metadata": {"name": unique()}, "data": {"a": 1}}).code == 400
    assert kube.ask("POST", THINGS, thing(labels={"a": 1})).code == 400
    made = kube.create(CONFIG_MAPS, config_map())
    assert kube.ask("PATCH", path(CONFIG_MAPS, made), {"data": {"a": 1}}, content_type=MERGE).code == 422


def test_unknown_field_is_dropped_told_of_or_refused(kube: Kube) -> None:
    body = {**config_map(), "dataa": {"a": "b"}}
    strict = kube.ask("POST", f"{CONFIG_MAPS}?fieldValidation=Strict", body)
    assert (strict.code, 'unknown field "dataa"' in strict.message) == (400, True)
    warned = kube.ask("POST", f"{CONFIG_MAPS}?fieldValidation=Warn", body)
    assert (warned.code, "dataa" in warned.body) == (201, False)
    assert 'unknown field \\"dataa\\"' in warned.headers["Warning"]
    assert (
        "Warning"
        not in kube.ask(
            "POST", f"{CONFIG_MAPS}?fieldValidation=Ignore", {**body, "metadata": {"name": unique()}}
        ).headers
    )


def test_pod_is_completed(kube: Kube, namespace: str) -> None:
    limits = {"resources": {"limits": {"cpu": 1, "memory": "1024Mi"}}}
    body = pod(containers=[{"name": "main", "image": "busybox:1", "ports": [{"containerPort": 80}], **limits}])
    made = kube.create(f"/api/v1/namespaces/{namespace}/pods", body)
    spec, (container,) = made["spec"], made["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    assert container["ports"][0]["protocol"] == "TCP"
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"]) == ("Always", 30)
    assert spec["serviceAccountName"] == "default"
    tolerated = {toleration["key"]: toleration.get("tolerationSeconds") for toleration in spec["tolerations"]}
    assert tolerated["node.kubernetes.io/unreachable"] == 300
    assert (made["status"]["phase"], made["status"]["qosClass"]) == ("Pending", "Guaranteed")


def test_pod_hardly_changes(kube: Kube, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    made = kube.create(pods, pod())
    answer = kube.ask("PATCH", path(pods, made), {"spec": {"hostname": "other"}}, content_type=MERGE)
    assert (answer.code, answer.fields()) == (422, {"spec"})
    assert "pod updates may not change fields other than" in answer.message


def test_odd_pods_are_invalid(kube: Kube, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    assert kube.ask("POST", pods, pod(containers=[])).fields() == {"spec.containers"}
    assert kube.ask("POST", pods, pod(containers=[{"image": "x"}])).fields() == {"spec.containers[0].name"}
    odd = kube.ask("POST", pods, pod(restartPolicy="Sometimes"))
    assert 'spec.restartPolicy: Unsupported value: "Sometimes"' in odd.message
    many = {"name": "main", "image": "x", "resources": {"limits": {"cpu": "many"}}}
    assert kube.ask("POST", pods, pod(containers=[many])).code == 400


def test_provider_id_of_a_node_is_set_once(kube: Kube, node: Object) -> None:
    where = path(NODES, node)
    assert kube.patch(where, {"spec": {"providerID": "azure:///a"}})["spec"]["providerID"] == "azure:///a"
    answer = kube.ask("PATCH", where, {"spec": {"providerID": "azure:///b"}}, content_type=MERGE)
    assert (answer.code, answer.fields()) == (422, {"spec.providerID"})


def test_amounts_are_kept_in_one_form(kube: Kube, node: Object) -> None:
    written = kube.patch(f"{path(NODES, node)}/status", {"status": {"capacity": {"cpu": "4000m", "memory": "8192Mi"}}})
    assert (written["status"]["capacity"]["cpu"], written["status"]["capacity"]["memory"]) == ("4", "8Gi")


def test_secret_is_stored_coded(kube: Kube) -> None:
    secrets = "/api/v1/namespaces/default/secrets"
    made = kube.create(secrets, {"metadata": {"name": unique()}, "stringData": {"a": "b"}})
    assert (made["data"], made["type"]) == ({"a": "Yg=="}, "Opaque")
    assert "stringData" not in made
    changed = kube.patch(path(secrets, made), {"stringData": {"c": "d"}})
    assert (changed["data"], "stringData" in changed) == ({"a": "Yg==", "c": "ZA=="}, False)


def test_event_is_about_something_in_its_namespace(kube: Kube) -> None:
    body = {"metadata": {"name": unique()}, "involvedObject": {"namespace": "kube-system"}}
    answer = kube.ask("POST", "/api/v1/namespaces/default/events", body)
    assert (answer.code, answer.fields()) == (422, {"involvedObject.namespace"})
    body["involvedObject"] = {"kind": "Node", "name": "n"}
    assert kube.ask("POST", "/api/v1/namespaces/default/events", body).code == 201


def test_lease_is_renewed(kube: Kube) -> None:
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    made = kube.create(leases, {"metadata": {"name": unique()}, "spec": {"holderIdentity": "a"}})
    moment = "2026-01-02T03:04:05.678901Z"
    renewed = kube.patch(path(leases, made), {"spec": {"renewTime": moment}})
    assert (renewed["spec"]["renewTime"], renewed["spec"]["holderIdentity"]) == (moment, "a")
