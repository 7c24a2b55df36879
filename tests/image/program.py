"""The program as it lies in the image, run as the image runs it: asked what can be asked without a cluster."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from provisioner import __version__
from provisioner.build import COMMIT

COMMIT_TOLD: Final = "0123abc"
_TIMEOUT: Final = 120.0
# Nothing of the caller's, as in a container.
_ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    COMMIT: COMMIT_TOLD,
}
_EVERY_MODULE: Final = """
import importlib, pkgutil, provisioner
names = [m.name for m in pkgutil.walk_packages(provisioner.__path__, "provisioner.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names), provisioner.__file__)
"""


class Program:
    """`provisioner` of an installation elsewhere. `python` is how its interpreter is called, with its options."""

    def __init__(
        self, python: Sequence[str], *, home: Path, variables: Mapping[str, str], user: int | None = None
    ) -> None:
        """Take the directory that is home and working directory, and as whom to run; None is whoever asks."""
        self._python = list(python)
        self._home = home
        self._environment = {**_ENVIRONMENT, "HOME": str(home), **variables}
        self._user = user

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python with arguments, to its end. No byte can be written to any file, be it in /tmp."""
        return subprocess.run(
            ["/bin/sh", "-c", 'ulimit -f 0 && exec "$@"', "sh", *self._python, *arguments],
            cwd=self._home,
            env=self._environment,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `provisioner` with arguments, to its end."""
        return self.call("-m", "provisioner", *arguments)

    def check(self, *, installed: Path) -> dict[str, Any]:
        """See that it works, and that it is the installation that is meant; return what it says of itself.

        Raises AssertionError.
        """
        helped = self.run("--help")
        assert (helped.returncode, helped.stderr) == (0, ""), helped
        assert all(command in helped.stdout for command in ("run", "workspace", "plan", "version"))

        told = self.run("version", "-o", "json")
        assert (told.returncode, told.stderr) == (0, ""), told
        build: dict[str, Any] = json.loads(told.stdout)
        assert (build["version"], build["commit"]) == (__version__, COMMIT_TOLD)
        assert "not installed" not in build["libraries"].values(), build

        loaded = self.call("-c", _EVERY_MODULE)
        assert loaded.returncode == 0, loaded.stderr
        number, where = loaded.stdout.split()
        assert int(number) > 100
        assert Path(where).is_relative_to(installed), where

        refused = self.run("run")
        assert refused.returncode == 2, refused
        assert refused.stderr.startswith("provisioner: ARM_SUBSCRIPTION_ID is missing"), refused
        lost = self.run("workspace")
        assert lost.returncode == 2, lost
        assert lost.stderr.splitlines()[-1].startswith("provisioner: KUBECONFIG is 'not set': no access"), lost

        assert list(self._home.iterdir()) == [], "it has written something"
        return build
