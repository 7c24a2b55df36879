"""Deletion: at once, gracefully, after finalizers; and what goes with its owner or its namespace."""

from typing import Any

import pytest

from tests.semantics.client import MERGE, Kube, Object, eventually, names, unique
from tests.semantics.things import CONFIG_MAPS, THINGS, config_map, path, pod, template, thing

FINALIZER = "semantics.example/hold"
JOBS = "/apis/batch/v1/namespaces/default/jobs"


def owned_by(*owners: Object, **more: Any) -> Object:
    """A ConfigMap of such owners, of a built-in kind too: the real collector learns of others twice a minute."""
    references = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            **more,
        }
        for owner in owners
    ]
    return config_map(ownerReferences=references)


def is_deleting(item: Object) -> bool:
    return "deletionTimestamp" in item["metadata"]


def test_deleted_object_is_gone_and_its_uid_told(kube: Kube) -> None:
    made = kube.create(THINGS, thing())
    answer = kube.delete(path(THINGS, made))
    assert (answer["kind"], answer["status"]) == ("Status", "Success")
    assert answer["details"]["uid"] == made["metadata"]["uid"]
    assert kube.find(path(THINGS, made)) is None


def test_finalizer_holds_an_object(kube: Kube) -> None:
    made = kube.create(THINGS, thing(finalizers=[FINALIZER]))
    where = path(THINGS, made)
    deleting = kube.delete(where)
    assert deleting["kind"] == "Thing"
    assert is_deleting(deleting)
    assert deleting["metadata"]["deletionGracePeriodSeconds"] == 0
    assert deleting["metadata"]["generation"] == 2
    again = kube.delete(where)
    assert again["metadata"]["deletionTimestamp"] == deleting["metadata"]["deletionTimestamp"]
    assert kube.patch(where, {"spec": {"size": 2}})["spec"]["size"] == 2
    last = kube.patch(where, {"metadata": {"finalizers": []}})
    assert "finalizers" not in last["metadata"]
    assert kube.find(where) is None


def test_object_on_its_way_gets_no_new_finalizers(kube: Kube) -> None:
    made = kube.create(THINGS, thing(finalizers=[FINALIZER]))
    kube.delete(path(THINGS, made))
    body = {"metadata": {"finalizers": [FINALIZER, "semantics.example/more"]}}
    answer = kube.ask("PATCH", path(THINGS, made), body, content_type=MERGE)
    assert (answer.code, answer.fields()) == (422, {"metadata.finalizers"})
    assert "no new finalizers can be added if the object is being deleted" in answer.message
    kube.patch(path(THINGS, made), {"metadata": {"finalizers": None}})


@pytest.mark.parametrize("precondition", ["uid", "resourceVersion"])
def test_deletion_can_be_of_one_uid_or_version_only(kube: Kube, precondition: str) -> None:
    made = kube.create(THINGS, thing())
    where = path(THINGS, made)
    answer = kube.ask("DELETE", where, {"preconditions": {precondition: "1"}})
    assert (answer.code, answer.reason) == (409, "Conflict")
    assert "in the precondition (1) does not match" in answer.message
    kube.delete(where, {"preconditions": {precondition: made["metadata"][precondition]}})
    assert kube.find(where) is None


def test_collection_is_deleted_as_selected(kube: Kube, namespace: str) -> None:
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    for name, team in (("a", "red"), ("b", "blue"), ("c", "red")):
        kube.create(maps, config_map(name, labels={"team": team}))
    answer = kube.delete(f"{maps}?labelSelector=team%3Dred")
    assert names(answer) == ["a", "c"]
    assert names(kube.get(f"{maps}?labelSelector=team")) == ["b"]


def test_pod_on_a_node_has_time_to_end(kube: Kube, namespace: str, node: Object) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    made = kube.create(pods, pod(nodeName=node["metadata"]["name"], terminationGracePeriodSeconds=20))
    where = path(pods, made)
    deleting = kube.delete(where)
    assert (deleting["kind"], deleting["metadata"]["deletionGracePeriodSeconds"]) == ("Pod", 20)
    assert kube.delete(where)["metadata"]["deletionTimestamp"] == deleting["metadata"]["deletionTimestamp"]
    sooner = kube.delete(where, {"gracePeriodSeconds": 5})
    assert sooner["metadata"]["deletionGracePeriodSeconds"] == 5
    assert sooner["metadata"]["deletionTimestamp"] < deleting["metadata"]["deletionTimestamp"]
    kube.delete(where, {"gracePeriodSeconds": 0})
    assert kube.find(where) is None


def test_pod_that_runs_nowhere_goes_at_once(kube: Kube, namespace: str, node: Object) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    waiting = kube.create(pods, pod())
    kube.delete(path(pods, waiting))
    assert kube.find(path(pods, waiting)) is None
    finished = kube.create(pods, pod(nodeName=node["metadata"]["name"]))
    kube.patch(f"{path(pods, finished)}/status", {"status": {"phase": "Succeeded"}})
    kube.delete(path(pods, finished))
    assert kube.find(path(pods, finished)) is None


def test_dependents_go_with_their_owner(kube: Kube) -> None:
    owner = kube.create(CONFIG_MAPS, config_map())
    child = kube.create(CONFIG_MAPS, owned_by(owner))
    kube.delete(path(CONFIG_MAPS, owner))
    kube.gone(path(CONFIG_MAPS, child))


def test_dependents_of_dependents_go_too(kube: Kube) -> None:
    owner = kube.create(CONFIG_MAPS, config_map())
    child = kube.create(CONFIG_MAPS, owned_by(owner))
    grandchild = kube.create(CONFIG_MAPS, owned_by(child))
    kube.delete(path(CONFIG_MAPS, owner))
    kube.gone(path(CONFIG_MAPS, grandchild))


def test_object_of_two_owners_stays_with_the_second(kube: Kube) -> None:
    one, two = kube.create(CONFIG_MAPS, config_map()), kube.create(CONFIG_MAPS, config_map())
    child = kube.create(CONFIG_MAPS, owned_by(one, two))
    kube.delete(path(CONFIG_MAPS, one))

    def owners() -> list[str]:
        return [entry["uid"] for entry in kube.get(path(CONFIG_MAPS, child))["metadata"]["ownerReferences"]]

    eventually(owners, until=lambda uids: uids == [two["metadata"]["uid"]])
    kube.delete(path(CONFIG_MAPS, two))
    kube.gone(path(CONFIG_MAPS, child))


def test_object_whose_owner_never_was_is_collected(kube: Kube) -> None:
    owner = kube.create(CONFIG_MAPS, config_map())
    ghost = {**owner, "metadata": {**owner["metadata"], "uid": "00000000-0000-0000-0000-000000000001"}}
    child = kube.create(CONFIG_MAPS, owned_by(ghost))
    kube.gone(path(CONFIG_MAPS, child))


def test_foreground_deletion_waits_for_dependents(kube: Kube) -> None:
    owner = kube.create(CONFIG_MAPS, config_map())
    body = owned_by(owner, blockOwnerDeletion=True)
    body["metadata"]["finalizers"] = [FINALIZER]
    child = kube.create(CONFIG_MAPS, body)
    deleting = kube.delete(path(CONFIG_MAPS, owner), {"propagationPolicy": "Foreground"})
    assert deleting["metadata"]["finalizers"] == ["foregroundDeletion"]
    eventually(lambda: kube.get(path(CONFIG_MAPS, child)), until=is_deleting)
    assert kube.find(path(CONFIG_MAPS, owner)) is not None
    kube.patch(path(CONFIG_MAPS, child), {"metadata": {"finalizers": None}})
    kube.gone(path(CONFIG_MAPS, child))
    kube.gone(path(CONFIG_MAPS, owner))


def test_orphans_stay_without_their_owner(kube: Kube) -> None:
    owner = kube.create(CONFIG_MAPS, config_map())
    child = kube.create(CONFIG_MAPS, owned_by(owner))
    kube.delete(f"{path(CONFIG_MAPS, owner)}?propagationPolicy=Orphan")
    kube.gone(path(CONFIG_MAPS, owner))
    assert "ownerReferences" not in kube.get(path(CONFIG_MAPS, child))["metadata"]


def test_job_leaves_its_pods_unless_told_otherwise(kube: Kube) -> None:
    body = template(restartPolicy="Never")
    made = kube.create(JOBS, {"metadata": {"name": unique("job")}, "spec": {"template": body}})
    kube.delete(path(JOBS, made))
    kube.gone(path(JOBS, made))
    assert kube.ask("DELETE", path(JOBS, made), {"propagationPolicy": "Sideways"}).code in {404, 422}


def test_namespace_goes_with_all_that_is_in_it(kube: Kube, namespace: str) -> None:
    kube.create(f"/api/v1/namespaces/{namespace}/configmaps", config_map("a"))
    things = THINGS.replace("/default/", f"/{namespace}/")
    kube.create(things, thing("a"))
    deleting = kube.delete(f"/api/v1/namespaces/{namespace}")
    assert deleting["status"]["phase"] == "Terminating"
    kube.gone(f"/api/v1/namespaces/{namespace}")
    assert "a" not in names(kube.get(f"/api/v1/namespaces/{namespace}/configmaps"))
    assert names(kube.get(things)) == []


def test_namespace_waits_for_what_is_held_and_takes_nothing_new(kube: Kube, namespace: str) -> None:
    things = THINGS.replace("/default/", f"/{namespace}/")
    kube.create(things, thing("held", finalizers=[FINALIZER]))
    kube.delete(f"/api/v1/namespaces/{namespace}")
    eventually(lambda: kube.get(f"{things}/held"), until=is_deleting)
    assert kube.find(f"/api/v1/namespaces/{namespace}") is not None
    answer = kube.ask("POST", f"/api/v1/namespaces/{namespace}/configmaps", config_map())
    assert (answer.code, answer.reason) == (403, "Forbidden")
    assert "because it is being terminated" in answer.message
    # The real one looks again after ten seconds only: nobody waits for that here.
    kube.patch(f"{things}/held", {"metadata": {"finalizers": None}})


def test_namespace_is_furnished(kube: Kube, namespace: str) -> None:
    made = kube.get(f"/api/v1/namespaces/{namespace}")
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": namespace}
    assert made["status"]["phase"] == "Active"
    assert kube.find(f"/api/v1/namespaces/{namespace}/serviceaccounts/default") is not None
    eventually(lambda: kube.find(f"/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt"))
