"""Helm as tests use it: away from everything of the user's own, and with objects instead of text."""

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

Object = dict[str, Any]

CHARTS: Final = Path(__file__).resolve().parents[2] / "charts"
PROVISIONER: Final = "gpu-provisioner"
WORKSPACE: Final = "workspace"
_TIMEOUT: Final = 60.0
_NONE: Mapping[str, Any] = {}


class HelmFailed(RuntimeError):
    """Helm has ended with an error; the message is what it said."""


@dataclass(frozen=True)
class Manifests:
    """The objects of a release."""

    objects: tuple[Object, ...]

    def all(self, kind: str) -> list[Object]:
        """Return the objects of a kind."""
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str) -> Object:
        """Return the only object of a kind."""
        (found,) = self.all(kind)
        return found

    @property
    def kinds(self) -> list[str]:
        """Return the kinds of all objects, sorted."""
        return sorted(found["kind"] for found in self.objects)

    @property
    def pod(self) -> Object:
        """Return the pod template of the controller."""
        template: Object = self.one("Deployment")["spec"]["template"]
        return template

    @property
    def container(self) -> Object:
        """Return the controller's container."""
        (container,) = self.pod["spec"]["containers"]
        assert isinstance(container, dict)
        return container

    @property
    def variables(self) -> dict[str, str]:
        """Return the controller's environment, but for what is looked up in the cluster."""
        entries = self.container["env"]
        names = [entry["name"] for entry in entries]
        assert sorted(set(names)) == sorted(names), "the API server takes each name once"
        return {entry["name"]: entry["value"] for entry in entries if "valueFrom" not in entry}


@dataclass(frozen=True, kw_only=True)
class Helm:
    """One Helm with a home of its own, which asks the cluster of `kubeconfig`, or none."""

    binary: Path
    home: Path
    kubeconfig: Path | None = None

    def on(self, kubeconfig: Path) -> "Helm":
        """Return the same for a cluster."""
        return replace(self, kubeconfig=kubeconfig)

    def run(self, *arguments: str, values: Mapping[str, Any] = _NONE) -> str:
        """Return what Helm prints. Raises HelmFailed."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "KUBECONFIG": str(self.kubeconfig or self.home / "no-kubeconfig"),
        }
        # By standard input: a file would have to be cleared away.
        extra = ("--values=-",) if values else ()
        result = subprocess.run(
            [self.binary, *arguments, *extra],
            input=yaml.safe_dump(dict(values)),
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        if result.returncode != 0:
            # Without its log, which tells of the links that stand for shared files.
            said = [line for line in result.stderr.splitlines() if not line.startswith("level=INFO")]
            raise HelmFailed("\n".join(said).strip())
        return result.stdout

    def template(
        self,
        chart: str | Path,
        *options: str,
        release: str = "",
        namespace: str = "system",
        values: Mapping[str, Any] = _NONE,
    ) -> Manifests:
        """Return what a chart of ours, or that at a path, comes to. Raises HelmFailed."""
        name = release or Path(chart).name
        printed = self.run("template", name, str(path_of(chart)), f"--namespace={namespace}", *options, values=values)
        return parsed(printed)

    def install(
        self, chart: str | Path, *options: str, release: str = "", namespace: str, values: Mapping[str, Any] = _NONE
    ) -> str:
        """Install or upgrade, and return what people are told. Raises HelmFailed."""
        name = release or Path(chart).name
        arguments = ("upgrade", "--install", name, str(path_of(chart)), f"--namespace={namespace}")
        return self.run(*arguments, "--create-namespace", *options, values=values).partition("NOTES:\n")[2]

    def uninstall(self, release: str, *, namespace: str) -> str:
        """Uninstall, and return what is said of it."""
        return self.run("uninstall", release, f"--namespace={namespace}")

    def manifests(self, release: str, *, namespace: str) -> Manifests:
        """Return the objects of a release that is installed."""
        return parsed(self.run("get", "manifest", release, f"--namespace={namespace}"))


def path_of(chart: str | Path) -> Path:
    """Return where a chart is: one of ours by its name."""
    return CHARTS / chart if isinstance(chart, str) else chart


def parsed(text: str) -> Manifests:
    """Return the objects of a text with many of them."""
    return Manifests(objects=tuple(found for found in yaml.safe_load_all(text) if found))


def merged(*values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values laid over each other, as Helm does with several files."""
    result: dict[str, Any] = {}
    for layer in values:
        for key, value in layer.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def names(objects: Iterable[Object]) -> set[str]:
    """Return the names of objects."""
    return {found["metadata"]["name"] for found in objects}
