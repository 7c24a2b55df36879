"""What the charts come to, without a cluster."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.apis import names as known
from tests.charts.helm import CHARTS, PROVISIONER, WORKSPACE, Helm, Manifests, Object, merged, names, parsed
from tests.charts.values import LEAST
from tests.scenarios.rights import rules

pytestmark = pytest.mark.real

CRDS = CHARTS.parent / "crds"
BOTH = (PROVISIONER, WORKSPACE)
LEAST_OF: dict[str, dict[str, Any]] = {PROVISIONER: LEAST, WORKSPACE: {}}
SELECTOR = "app.kubernetes.io/name", "app.kubernetes.io/instance"
ON: dict[str, Any] = {"networkPolicy": {"enabled": True}, "serviceMonitor": {"enabled": True}}
CLUSTER_WIDE = ("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")


def render(helm: Helm, chart: str, values: dict[str, Any] | None = None, **options: str) -> Manifests:
    return helm.template(chart, values=merged(LEAST_OF[chart], values or {}), **options)


@pytest.mark.parametrize("chart", BOTH)
def test_lint_finds_nothing(helm: Helm, chart: str) -> None:
    said = helm.run("lint", "--strict", str(CHARTS / chart), values=LEAST_OF[chart])
    assert "0 chart(s) failed" in said
    assert "[WARNING]" not in said


@pytest.mark.parametrize("chart", BOTH)
def test_nothing_is_rendered_that_was_not_asked_for(helm: Helm, chart: str) -> None:
    base = ["ClusterRole", "ClusterRoleBinding", "Deployment", "PodDisruptionBudget", "Role", "RoleBinding", "Service"]
    own = {
        PROVISIONER: ["CustomResourceDefinition"] * 2 + ["DaemonSet"] + ["ServiceAccount"] * 2,
        WORKSPACE: ["CustomResourceDefinition", "ServiceAccount"],
    }
    assert render(helm, chart).kinds == sorted(base + own[chart])


def test_both_charts_stand_side_by_side_and_beside_those_that_they_replace(helm: Helm) -> None:
    # Of one name in one namespace, as nobody would have them.
    rendered = [
        helm.template(chart, values=merged(LEAST_OF[chart], {"fullnameOverride": f"a-{chart}"})) for chart in BOTH
    ]
    first, second = (
        {(found["kind"], found["metadata"].get("namespace"), found["metadata"]["name"]) for found in manifests.objects}
        for manifests in rendered
    )
    assert first & second == set()
    theirs = {f"{name}-{end}" for name in BOTH for end in ("core", "clusterrole", "rolebinding")}
    for chart in BOTH:
        wide = [found for found in render(helm, chart).objects if found["kind"] in CLUSTER_WIDE[:2]]
        assert names(wide) & theirs == set()


@pytest.mark.parametrize("chart", BOTH)
def test_whatever_selects_pods_selects_those_of_the_release(helm: Helm, chart: str) -> None:
    rendered = render(helm, chart, ON, release="first")
    labels = rendered.pod["metadata"]["labels"]
    own = {key: labels[key] for key in SELECTOR}
    # A release of Azure/gpu-provisioner's chart can be upgraded to this one: a selector cannot be changed.
    assert rendered.one("Deployment")["spec"]["selector"]["matchLabels"] == own
    assert own == {SELECTOR[0]: chart, SELECTOR[1]: "first"}
    assert rendered.one("Service")["spec"]["selector"] == own
    assert rendered.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == own
    assert rendered.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == own
    service = rendered.one("Service")["metadata"]["labels"]
    assert rendered.one("ServiceMonitor")["spec"]["selector"]["matchLabels"].items() <= service.items()
    for constraint in rendered.pod["spec"]["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"] == own


def test_a_selector_that_is_left_out_of_affinity_is_the_pods_own(helm: Helm) -> None:
    mine = {"labelSelector": {"matchLabels": {"app": "other"}}, "topologyKey": "kubernetes.io/hostname"}
    anti = {
        "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}, mine],
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": {"topologyKey": "topology.kubernetes.io/zone"}}
        ],
    }
    rendered = render(helm, PROVISIONER, {"affinity": {"podAntiAffinity": anti}})
    found = rendered.pod["spec"]["affinity"]["podAntiAffinity"]
    own = {key: rendered.pod["metadata"]["labels"][key] for key in SELECTOR}
    first, second = found["requiredDuringSchedulingIgnoredDuringExecution"]
    assert first["labelSelector"]["matchLabels"] == own
    assert second == mine
    (preferred,) = found["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["podAffinityTerm"]["labelSelector"]["matchLabels"] == own


@pytest.mark.parametrize("chart", BOTH)
def test_no_port_is_open_but_those_of_health_and_metrics(helm: Helm, chart: str) -> None:
    assert ports(render(helm, chart)) == {"http": 8081, "http-metrics": 8080}
    closed = render(helm, chart, {"controller": {"metrics": {"port": 0}}})
    assert ports(closed) == {"http": 8081}
    assert closed.all("Service") == []
    assert "METRICS_PORT" not in closed.variables


def ports(rendered: Manifests) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in rendered.container["ports"]}


@pytest.mark.parametrize("chart", BOTH)
def test_probes_ask_the_health_port(helm: Helm, chart: str) -> None:
    container = render(helm, chart).container
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


@pytest.mark.parametrize("chart", BOTH)
def test_of_two_instances_one_acts_by_a_lease_in_their_own_namespace(helm: Helm, chart: str) -> None:
    rendered = render(helm, chart)
    assert rendered.one("Deployment")["spec"]["replicas"] == 2
    assert rendered.variables["LEADER_ELECTION"] == "true"
    field = {"fieldRef": {"fieldPath": "metadata.namespace"}}
    assert {"name": "LEASE_NAMESPACE", "valueFrom": field} in rendered.container["env"]
    assert rendered.one("Role")["metadata"]["namespace"] == "system"
    assert rendered.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("chart", BOTH)
def test_the_service_account_has_the_rights_of_the_file_and_those_that_are_added(helm: Helm, chart: str) -> None:
    extra = {"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]}
    rendered = render(helm, chart, {"additionalClusterRoleRules": [extra]})
    assert rendered.one("ClusterRole")["rules"] == [*rules(chart)["cluster"], extra]
    assert rendered.one("Role")["rules"] == rules(chart)["namespace"]
    account = {"kind": "ServiceAccount", "name": rendered.pod["spec"]["serviceAccountName"], "namespace": "system"}
    for kind in ("ClusterRole", "Role"):
        binding = rendered.one(f"{kind}Binding")
        assert binding["subjects"] == [account]
        assert binding["roleRef"]["name"] == rendered.one(kind)["metadata"]["name"]
    assert account["name"] in names(rendered.all("ServiceAccount"))


def without_metadata(crd: Object) -> Object:
    return {**crd, "metadata": {"name": crd["metadata"]["name"]}}


@pytest.mark.parametrize("chart", BOTH)
def test_crds_are_those_of_the_repository_and_are_kept(helm: Helm, chart: str) -> None:
    rendered = render(helm, chart).all("CustomResourceDefinition")
    found = {path.name: yaml.safe_load(path.read_text()) for path in CRDS.glob("*.yaml")}
    shipped = sorted(path.name for path in (CHARTS / chart / "files" / "crds").iterdir())
    assert [without_metadata(crd) for crd in rendered] == [without_metadata(found[name]) for name in shipped]
    for crd in rendered:
        assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert render(helm, chart, {"crds": {"install": False}}).all("CustomResourceDefinition") == []


def test_no_crd_is_in_both_charts_and_none_in_no_chart() -> None:
    shipped = [path.name for chart in BOTH for path in (CHARTS / chart / "files" / "crds").iterdir()]
    assert sorted(shipped) == sorted(path.name for path in CRDS.iterdir())


def test_annotations_of_ones_own_cannot_lose_the_crds(helm: Helm) -> None:
    mine = {"helm.sh/resource-policy": "", "argocd.argoproj.io/sync-options": "Prune=false"}
    for crd in render(helm, PROVISIONER, {"crds": {"annotations": mine}}).all("CustomResourceDefinition"):
        assert crd["metadata"]["annotations"] == {**mine, "helm.sh/resource-policy": "keep"}


@pytest.fixture(scope="module")
def packages(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The charts as they are published."""
    folder = tmp_path_factory.mktemp("packages")
    for chart in BOTH:
        helm.run("package", str(CHARTS / chart), f"--destination={folder}")
    return {chart: next(folder.glob(f"{chart}-*.tgz")) for chart in BOTH}


@pytest.mark.parametrize("chart", BOTH)
def test_a_package_needs_nothing_beside_it(helm: Helm, packages: dict[str, Path], chart: str) -> None:
    with tarfile.open(packages[chart]) as archive:
        assert [member.name for member in archive.getmembers() if not member.isfile()] == []
    packed = helm.template(packages[chart], release=chart, values=LEAST_OF[chart])
    assert packed == render(helm, chart)


def test_both_charts_can_be_parts_of_one(helm: Helm, packages: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "charts").mkdir()
    for package in packages.values():
        (tmp_path / "charts" / package.name).write_bytes(package.read_bytes())
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: platform, version: 0.1.0}")
    values = {PROVISIONER: LEAST, WORKSPACE: {"replicas": 3}, "global": {"team": "models"}}

    rendered = helm.template(tmp_path, release="platform", values=values)

    deployments = {found["metadata"]["name"]: found["spec"] for found in rendered.all("Deployment")}
    assert {name: spec["replicas"] for name, spec in deployments.items()} == {
        "platform-gpu-provisioner": 2,
        "platform-workspace": 3,
    }
    commands = {name: spec["template"]["spec"]["containers"][0]["args"] for name, spec in deployments.items()}
    assert commands == {"platform-gpu-provisioner": ["run"], "platform-workspace": ["workspace"]}


def test_alerts_and_dashboard_are_the_files(helm: Helm) -> None:
    on = {"prometheusRule": {"enabled": True, "additionalLabels": {"release": "prometheus"}}}
    rendered = render(helm, PROVISIONER, {**on, "grafanaDashboard": {"enabled": True}})
    files = CHARTS / PROVISIONER / "files"
    rule = rendered.one("PrometheusRule")
    assert rule["spec"] == yaml.safe_load((files / "alerts.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    board = rendered.one("ConfigMap")
    assert json.loads(board["data"]["gpu-provisioner.json"]) == json.loads((files / "dashboard.json").read_text())
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_the_network_policy_lets_in_probes_and_metrics_and_out_names_and_https(helm: Helm) -> None:
    scraper = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    policy = {"enabled": True, "metricsFrom": [scraper], "httpsPorts": [443, 6443]}
    spec = render(helm, PROVISIONER, {"networkPolicy": policy}).one("NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [
        {"ports": [{"port": "http"}]},
        {"ports": [{"port": "http-metrics"}], "from": [scraper]},
    ]
    assert [port["port"] for rule in spec["egress"] for port in rule["ports"]] == [53, 53, 443, 6443]
    managed = render(helm, PROVISIONER, {"networkPolicy": policy, "deploymentMode": "managed"})
    assert managed.one("NetworkPolicy")["spec"]["egress"][-1]["to"] == [{"ipBlock": {"cidr": "169.254.169.254/32"}}]


def test_the_device_plugin_goes_where_gpus_are_and_is_trusted_with_no_token(helm: Helm) -> None:
    rendered = render(helm, PROVISIONER)
    plugin = rendered.one("DaemonSet")
    pod = plugin["spec"]["template"]["spec"]
    assert plugin["metadata"]["namespace"] == "kube-system"
    assert pod["automountServiceAccountToken"] is False
    (account,) = [found for found in rendered.all("ServiceAccount") if found["metadata"]["namespace"] == "kube-system"]
    assert account["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == account["metadata"]["name"] != rendered.pod["spec"]["serviceAccountName"]
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    wanted = [(each["key"], each["operator"], each["values"]) for term in terms for each in term["matchExpressions"]]
    assert wanted == [
        ("kubernetes.azure.com/accelerator", "In", ["nvidia"]),
        (known.ACCELERATOR_LABEL, "In", [known.ACCELERATOR_NVIDIA]),
    ]
    # Whatever taints a claim has.
    assert pod["tolerations"] == [{"operator": "Exists"}]
    (volume,) = pod["volumes"]
    assert volume["hostPath"]["path"] == "/var/lib/kubelet/device-plugins"


@pytest.mark.parametrize(
    ("strategy", "capabilities"),
    [("none", {"drop": ["ALL"]}), ("single", {"add": ["SYS_ADMIN"]}), ("mixed", {"add": ["SYS_ADMIN"]})],
)
def test_the_device_plugin_may_more_only_where_gpus_are_divided(
    helm: Helm, strategy: str, capabilities: dict[str, list[str]]
) -> None:
    rendered = render(helm, PROVISIONER, {"devicePlugin": {"migStrategy": strategy}})
    (container,) = rendered.one("DaemonSet")["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["capabilities"] == capabilities
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert variables["MIG_STRATEGY"] == strategy
    assert ("NVIDIA_MIG_MONITOR_DEVICES" in variables) is (strategy != "none")


def test_the_device_plugin_can_be_left_to_others(helm: Helm) -> None:
    rendered = render(helm, PROVISIONER, {"devicePlugin": {"enabled": False}})
    assert rendered.all("DaemonSet") == []
    assert {found["metadata"]["namespace"] for found in rendered.all("ServiceAccount")} == {"system"}


def test_an_image_is_named_by_registry_tag_and_digest(helm: Helm) -> None:
    digest = f"sha256:{'a' * 64}"
    image = {"repository": "registry.example.com/gpu-provisioner", "tag": "1.2.3", "digest": digest}
    for chart in BOTH:
        container = render(helm, chart, {"controller": {"image": image}}).container
        assert container["image"] == f"registry.example.com/gpu-provisioner:1.2.3@{digest}"


def test_what_is_needed_for_a_proxy_can_be_mounted(helm: Helm) -> None:
    volume = {"name": "ca", "configMap": {"name": "ca"}}
    mount = {"name": "ca", "mountPath": "/etc/ca", "readOnly": True}
    rendered = render(
        helm,
        PROVISIONER,
        {"extraVolumes": [volume], "controller": {"extraVolumeMounts": [mount]}},
    )
    assert volume in rendered.pod["spec"]["volumes"]
    assert mount in rendered.container["volumeMounts"]


@pytest.mark.parametrize("chart", BOTH)
def test_labels_and_annotations_for_all_objects_are_on_all(helm: Helm, chart: str) -> None:
    more = {"additionalLabels": {"team": "models"}, "additionalAnnotations": {"owner": "us"}}
    for found in render(helm, chart, merged(ON, more)).objects:
        assert found["metadata"]["labels"]["team"] == "models", found["kind"]
        assert found["metadata"]["annotations"]["owner"] == "us", found["kind"]


def test_what_people_are_told_goes_by_their_values(helm: Helm) -> None:
    def notes(values: dict[str, Any]) -> str:
        arguments = ("install", "gpus", str(CHARTS / PROVISIONER), "--namespace=system", "--dry-run=client")
        return helm.run(*arguments, values=merged(LEAST, values)).partition("NOTES:\n")[2]

    told = notes({})
    assert "--subject system:serviceaccount:system:gpus-gpu-provisioner" in told
    assert "names no registry" in told
    told = notes({"deploymentMode": "managed", "controller": {"image": {"repository": "example.com/gpu-provisioner"}}})
    assert "federated-credential" not in told
    assert "names no registry" not in told
    assert "the identity of the nodes" in told
    assert "DEVICE PLUGIN: this release brings none" in notes({"devicePlugin": {"enabled": False}})


def test_parsing_keeps_every_object() -> None:
    assert parsed("kind: A\n---\n---\nkind: B\n").kinds == ["A", "B"]
