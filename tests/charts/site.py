"""A cluster with nothing of ours in it, and Helm for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from fakes.aks import CRDS, DEVICE_PLUGIN
from fakes.cluster.api import ApiError
from fakes.cluster.interface import ControlPlane
from tests.charts.helm import Helm, Object
from tests.kube import CRDS as CRD_PATH
from tests.kube import uninstall


@dataclass(frozen=True, kw_only=True)
class Site:
    """What is installed on, and by what."""

    cluster: ControlPlane
    helm: Helm

    def get(self, path: str) -> Object | None:
        """Return what is at a path, None where nothing is."""
        try:
            found: Object = self.cluster.client().request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def create(self, path: str, body: Mapping[str, Any]) -> Object:
        """Create an object."""
        made: Object = self.cluster.client().request("POST", path, body=dict(body))
        return made

    def create_restricted_namespace(self, name: str) -> None:
        """Create a namespace where Pod Security takes the most harmless of pods only."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})

    def crd(self, name: str) -> Object:
        """Return a CRD that is there."""
        found = self.get(f"{CRD_PATH}/{name}")
        assert found is not None, name
        return found

    def served(self, name: str) -> None:
        """Wait until the kind of a CRD is served."""
        self.cluster.run_kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{name}")

    def deployment(self, namespace: str, name: str) -> Object:
        """Return a Deployment that is there."""
        found = self.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
        assert found is not None, name
        return found

    def clear(self) -> None:
        """Take away all releases, what they keep, and the device plugin of other tests."""
        for release in yaml.safe_load(self.helm.run("list", "--all-namespaces", "--output=yaml")) or ():
            self.helm.uninstall(release["name"], namespace=release["namespace"])
        uninstall(self.cluster, *CRDS)
        self.cluster.run_kubectl("delete", "--ignore-not-found", f"--filename={DEVICE_PLUGIN}")
