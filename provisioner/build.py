"""What runs: the version of this program, the commit that it was built from, Python and the main libraries."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from provisioner import __version__

# Set by the image; see provisioner/Dockerfile.
COMMIT: Final = "GPU_PROVISIONER_COMMIT"
LIBRARIES: Final = (
    "aiohttp",
    "azure-core",
    "azure-identity",
    "azure-mgmt-compute",
    "azure-mgmt-containerservice",
    "kopf",
    "kubernetes",
    "pydantic",
)


@dataclass(frozen=True, kw_only=True)
class Build:
    """`commit` is empty where it was not told; `libraries` are versions by distribution."""

    version: str
    commit: str
    python: str
    platform: str
    libraries: Mapping[str, str]

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)

    def text(self) -> str:
        """Return it for people, a line each."""
        rows = (
            ("gpu-provisioner", self.version),
            ("commit", self.commit or "unknown"),
            ("python", self.python),
            ("platform", self.platform),
            *self.libraries.items(),
        )
        width = max(len(name) for name, _ in rows)
        return "".join(f"{name:<{width}}  {value}\n" for name, value in rows)


def this_build(environment: Mapping[str, str] = os.environ) -> Build:
    """Return what runs here."""
    return Build(
        version=__version__,
        commit=environment.get(COMMIT, "").strip(),
        python=platform.python_version(),
        platform=f"{platform.system()}/{platform.machine()}".lower(),
        libraries={name: _version(name) for name in LIBRARIES},
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
