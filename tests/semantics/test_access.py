"""Who gets in, and who he is then."""

import json

import pytest

from fakes.cluster.api import ApiError
from fakes.cluster.interface import ControlPlane
from tests.semantics.client import Kube
from tests.semantics.things import CONFIG_MAPS, NODES


def test_nobody_gets_in_without_a_token(cluster: ControlPlane, kube: Kube) -> None:
    anonymous = Kube(cluster, token=None)
    answer = anonymous.ask("GET", NODES)
    assert (answer.code, answer.reason) == (403, "Forbidden")
    assert 'User "system:anonymous" cannot' in answer.message
    assert anonymous.ask("GET", "/readyz").body == "ok"
    anonymous.close()


def test_wrong_token_is_unauthorized(cluster: ControlPlane) -> None:
    guessing = Kube(cluster, token="guess")
    answer = guessing.ask("GET", NODES)
    assert (answer.code, answer.reason) == (401, "Unauthorized")
    guessing.close()


def test_token_of_a_service_account_lets_it_in(cluster: ControlPlane, kube: Kube, namespace: str) -> None:
    account = Kube(cluster, token=cluster.token_for(namespace, service_account="default"))
    # What it may do is another question.
    assert account.ask("GET", NODES).code in {200, 403}
    account.close()


def test_token_of_an_unknown_account_is_not_to_be_had(cluster: ControlPlane, kube: Kube) -> None:
    with pytest.raises(ApiError) as refused:
        cluster.token_for("default", service_account="nobody")
    assert refused.value.status == 404


def test_kubeconfig_of_a_service_account_is_private(cluster: ControlPlane, namespace: str) -> None:
    written = cluster.kubeconfig_for(namespace, service_account="default")
    assert written.stat().st_mode & 0o777 == 0o600
    content = json.loads(written.read_text())
    assert content["contexts"][0]["context"]["namespace"] == namespace
    assert content["clusters"][0]["cluster"]["server"] == cluster.url


def test_rights_are_kept(kube: Kube) -> None:
    rule = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}
    place = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    kube.create(place, {"metadata": {"name": "semantics:reader"}, "rules": [rule]})
    assert kube.get(f"{place}/semantics:reader")["rules"] == [rule]
    assert kube.ask("GET", CONFIG_MAPS).code == 200
