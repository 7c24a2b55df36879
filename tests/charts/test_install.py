"""The charts installed, upgraded and uninstalled on the real control plane."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.aks import CRDS, DEVICE_PLUGIN
from fakes.cluster.base import ComponentFailed
from fakes.cluster.interface import ControlPlane
from tests.charts.helm import CHARTS, PROVISIONER, WORKSPACE, Helm, HelmFailed, Object, merged, names
from tests.charts.site import Site
from tests.charts.values import LEAST, PEER, PEER_WHOLE

pytestmark = pytest.mark.real_only("server-side apply, Pod Security and rights are looked at there alone")

NODE_CLAIMS = "nodeclaims.karpenter.sh"
NODE_CLASSES = "kaitonodeclasses.kaito.sh"
WORKSPACES = "workspaces.kaito.sh"
CLASSES_PATH = "/apis/kaito.sh/v1alpha1/kaitonodeclasses"
KEEP = "helm.sh/resource-policy"
OWNER = "meta.helm.sh/release-name"


@pytest.fixture
def site(control_plane: ControlPlane, helm: Helm) -> Iterator[Site]:
    here = Site(cluster=control_plane, helm=helm.on(control_plane.kubeconfig))
    here.clear()
    yield here
    here.clear()


def values_of(chart: str) -> dict[str, Any]:
    return LEAST if chart == PROVISIONER else {}


def crd_of(kind: str, plural: str) -> Object:
    """Return a CRD of the Prometheus operator's, without what is in the objects."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "names": {"kind": kind, "plural": plural},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


@pytest.fixture
def prometheus_operator(site: Site, tmp_path: Path) -> Iterator[None]:
    manifest = tmp_path / "prometheus.yaml"
    kinds = (("ServiceMonitor", "servicemonitors"), ("PrometheusRule", "prometheusrules"))
    manifest.write_text(yaml.safe_dump_all([crd_of(kind, plural) for kind, plural in kinds]))
    site.cluster.apply(manifest)
    yield
    site.cluster.run_kubectl("delete", f"--filename={manifest}")


@pytest.mark.usefixtures("prometheus_operator")
def test_everything_there_is_is_accepted_and_taken_away_again(site: Site, tmp_path: Path) -> None:
    on = {name: {"enabled": True} for name in ("serviceMonitor", "networkPolicy")}
    more = {name: {"enabled": True} for name in ("prometheusRule", "grafanaDashboard")}
    for chart, values in ((PROVISIONER, merged(LEAST, on, more)), (WORKSPACE, on)):
        site.helm.install(chart, namespace="everything", values=values)
    for chart, crds in ((PROVISIONER, {NODE_CLAIMS, NODE_CLASSES}), (WORKSPACE, {WORKSPACES})):
        manifests = site.helm.manifests(chart, namespace="everything")
        assert {"ServiceMonitor", "NetworkPolicy"} <= set(manifests.kinds)
        everything = tmp_path / f"{chart}.yaml"
        everything.write_text(yaml.safe_dump_all(manifests.objects))
        site.helm.uninstall(chart, namespace="everything")
        left = site.cluster.run_kubectl("get", f"--filename={everything}", "--ignore-not-found", "--output=name")
        assert {line.partition("/")[2] for line in left.split()} == crds


@pytest.mark.parametrize("chart", [PROVISIONER, WORKSPACE])
def test_pod_security_restricted_takes_the_controllers_pods(site: Site, chart: str, tmp_path: Path) -> None:
    pods = restricted_pods(site, f"restricted-{chart}")
    template = site.helm.template(chart, values=values_of(chart)).pod
    accepted = pods({**template, "metadata": {**template["metadata"], "name": "controller"}}, tmp_path)
    assert accepted == "pod/controller created (server dry run)"


def test_pod_security_restricted_does_not_take_the_device_plugins_pods(site: Site, tmp_path: Path) -> None:
    # Why it goes to a namespace of its own; and a proof that the tests beside this one can fail.
    template = site.helm.template(PROVISIONER, values=LEAST).one("DaemonSet")["spec"]["template"]
    pods = restricted_pods(site, "restricted-plugin")
    with pytest.raises(ComponentFailed, match="hostPath"):
        pods({**template, "metadata": {"name": "plugin"}}, tmp_path)


def restricted_pods(site: Site, namespace: str) -> Callable[[Object, Path], str]:
    """Return a way to ask whether a pod is accepted where the strictest Pod Security is enforced."""
    site.create_restricted_namespace(namespace)

    def ask(template: Object, folder: Path) -> str:
        account = {"metadata": {"name": template["spec"]["serviceAccountName"]}}
        site.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
        path = folder / "pod.yaml"
        path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", **template}))
        options = ("--dry-run=server", f"--namespace={namespace}", f"--filename={path}")
        return site.cluster.run_kubectl("create", *options).strip()

    return ask


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The chart of an earlier release, whose NodeClaims had no expireAfter."""
    folder = tmp_path / PROVISIONER
    shutil.copytree(CHARTS / PROVISIONER, folder)
    (path,) = (folder / "files" / "crds").glob("*nodeclaims.yaml")
    crd = yaml.safe_load(path.read_text())
    for version in crd["spec"]["versions"]:
        del version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["expireAfter"]
    path.write_text(yaml.safe_dump(crd))
    return folder


def claim_fields(site: Site) -> set[str]:
    schema = site.crd(NODE_CLAIMS)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return set(schema["properties"]["spec"]["properties"])


def test_an_upgrade_brings_new_crds_and_new_values(site: Site, earlier: Path) -> None:
    site.helm.install(earlier, namespace="upgraded", values=PEER)
    assert "expireAfter" not in claim_fields(site)
    assert site.deployment("upgraded", PROVISIONER)["spec"]["replicas"] == 1

    site.helm.install(PROVISIONER, namespace="upgraded", values=LEAST)

    assert "expireAfter" in claim_fields(site)
    spec = site.deployment("upgraded", PROVISIONER)["spec"]
    assert spec["replicas"] == 2
    variables = {entry["name"] for entry in spec["template"]["spec"]["containers"][0]["env"]}
    assert "ARM_SUBSCRIPTION_ID" in variables
    assert "LOCATION" not in variables


def test_what_was_made_outlives_the_release_and_is_the_next_ones(site: Site) -> None:
    site.helm.install(PROVISIONER, namespace="first", values=LEAST)
    site.served(NODE_CLASSES)
    body = {"apiVersion": "kaito.sh/v1alpha1", "kind": "KaitoNodeClass", "metadata": {"name": "mine"}}
    made = site.create(CLASSES_PATH, body)

    site.helm.uninstall(PROVISIONER, namespace="first")
    site.helm.install(PROVISIONER, namespace="first", values=LEAST)

    found = site.get(f"{CLASSES_PATH}/mine")
    assert found is not None
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    assert NODE_CLASSES in names(site.helm.manifests(PROVISIONER, namespace="first").objects)


def test_crds_that_were_there_are_left_alone_until_they_are_adopted(site: Site, earlier: Path) -> None:
    # As kubectl puts them there, or the folder crds/ of a chart.
    (older,) = (earlier / "files" / "crds").glob("*nodeclaims.yaml")
    site.cluster.apply(older)

    told = site.helm.install(PROVISIONER, namespace="later", values=LEAST)

    assert f"CRD: {NODE_CLAIMS} was there before" in told
    assert f"CRD: {NODE_CLASSES}" not in told
    assert "expireAfter" not in claim_fields(site)
    assert KEEP not in (site.crd(NODE_CLAIMS)["metadata"].get("annotations") or {})
    adopt = merged(LEAST, {"crds": {"adopt": True}})
    assert "--set crds.adopt=true --take-ownership --force-conflicts" in told
    told = site.helm.install(PROVISIONER, "--take-ownership", "--force-conflicts", namespace="later", values=adopt)
    assert "CRD:" not in told
    assert "expireAfter" in claim_fields(site)
    assert site.crd(NODE_CLAIMS)["metadata"]["annotations"][KEEP] == "keep"
    # From now on it is as if it had been there from the start.
    site.helm.install(PROVISIONER, namespace="later", values=LEAST)
    assert NODE_CLAIMS in names(site.helm.manifests(PROVISIONER, namespace="later").objects)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A chart like KAITO's, with the CRD of Workspaces among its templates and one of NodeClaims in crds/."""
    folder = tmp_path / "other"
    (folder / "templates").mkdir(parents=True)
    (folder / "crds").mkdir()
    (folder / "Chart.yaml").write_text("{apiVersion: v2, name: workspace, version: 0.1.0}")
    by_name = {path.name: path for path in CRDS}
    shutil.copy(by_name["kaito.sh_workspaces.yaml"], folder / "templates")
    claims = yaml.safe_load(by_name["karpenter.sh_nodeclaims.yaml"].read_text())
    for version in claims["spec"]["versions"]:
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        spec["expireAfter"]["default"] = "720h"
    (folder / "crds" / "nodeclaims.yaml").write_text(yaml.safe_dump(claims))
    return folder


def test_crds_of_another_release_stay_its_own(site: Site, other: Path) -> None:
    site.helm.install(other, release="kaito", namespace="kaito")

    told = site.helm.install(WORKSPACE, namespace="models")
    assert f"CRD: {WORKSPACES} was there before and is left as it is, for it belongs to release kaito/kaito." in told
    told = site.helm.install(PROVISIONER, namespace="models", values=LEAST)

    # Azure/gpu-provisioner did not look at it; this controller does.
    assert "claims without spec.expireAfter end after 720h" in told
    assert site.crd(WORKSPACES)["metadata"]["annotations"][OWNER] == "kaito"
    for chart in (WORKSPACE, PROVISIONER):
        site.helm.uninstall(chart, namespace="models")
    assert site.crd(WORKSPACES)["metadata"]["annotations"][OWNER] == "kaito"
    assert site.crd(NODE_CLAIMS)


def test_crds_that_were_taken_over_by_another_release_are_not_deleted_by_an_upgrade(site: Site, other: Path) -> None:
    site.helm.install(WORKSPACE, namespace="models")
    site.helm.install(other, "--take-ownership", release="kaito", namespace="kaito")
    metadata = site.crd(WORKSPACES)["metadata"]
    assert (metadata["annotations"][OWNER], KEEP in metadata["annotations"]) == ("kaito", False)

    with pytest.raises(HelmFailed, match="would have Helm delete it") as refused:
        site.helm.install(WORKSPACE, namespace="models")

    assert f"kubectl annotate customresourcedefinition {WORKSPACES} {KEEP}=keep" in str(refused.value)
    site.cluster.run_kubectl("annotate", "customresourcedefinition", WORKSPACES, f"{KEEP}=keep")
    site.helm.install(WORKSPACE, namespace="models")
    assert site.crd(WORKSPACES)["metadata"]["uid"] == metadata["uid"]


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    """A chart that makes what Azure/gpu-provisioner's makes, as far as names and selectors go."""
    folder = tmp_path / "peer"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("{apiVersion: v2, name: gpu-provisioner, version: 0.4.4}")
    labels = {"app.kubernetes.io/name": PROVISIONER, "app.kubernetes.io/instance": PROVISIONER}
    metadata = {"name": PROVISIONER, "labels": labels}
    container = {
        "name": "controller",
        "image": "mcr.microsoft.com/aks/kaito/gpu-provisioner:0.4.4",
        "env": [{"name": "SYSTEM_NAMESPACE", "value": "x"}, {"name": "METRICS_PORT", "value": "8080"}],
        "ports": [{"name": "http", "containerPort": 8081, "protocol": "TCP"}],
    }
    port = {"name": "http-metrics", "port": 8080, "targetPort": "http-metrics", "protocol": "TCP"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "serviceAccountName": PROVISIONER}}
    objects = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": f"{PROVISIONER}-core"},
            "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}],
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [port], "selector": labels}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        },
    ]
    (folder / "templates" / "all.yaml").write_text(yaml.safe_dump_all(objects))
    return folder


def test_a_release_of_azures_chart_is_upgraded_where_it_is(site: Site, peer: Path) -> None:
    site.helm.install(peer, release=PROVISIONER, namespace="gpus")

    site.helm.install(PROVISIONER, namespace="gpus", values=PEER_WHOLE)

    (container,) = site.deployment("gpus", PROVISIONER)["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["run"]
    assert "SYSTEM_NAMESPACE" not in {entry["name"] for entry in container["env"]}
    # What only the former chart had is gone with it.
    assert site.get(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{PROVISIONER}-core") is None


def test_a_device_plugin_that_is_there_already_is_enough(site: Site) -> None:
    site.cluster.apply(DEVICE_PLUGIN)
    told = site.helm.install(PROVISIONER, namespace="plugged", values=LEAST)
    assert "DEVICE PLUGIN: that of DaemonSet kube-system/nvidia-device-plugin serves GPUs" in told
    assert "DaemonSet" not in site.helm.manifests(PROVISIONER, namespace="plugged").kinds
    # Whoever knows that it serves other nodes.
    site.helm.install(PROVISIONER, namespace="plugged", values=merged(LEAST, {"devicePlugin": {"enabled": True}}))
    assert "DaemonSet" in site.helm.manifests(PROVISIONER, namespace="plugged").kinds
    # Its own does not count when the other one has gone.
    site.cluster.run_kubectl("delete", f"--filename={DEVICE_PLUGIN}")
    told = site.helm.install(PROVISIONER, namespace="plugged", values=LEAST)
    assert "DEVICE PLUGIN" not in told
    assert "DaemonSet" in site.helm.manifests(PROVISIONER, namespace="plugged").kinds
