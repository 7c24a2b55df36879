"""Where things are in the pod. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from provisioner.serving import environment as names


@dataclass(frozen=True, kw_only=True)
class Places:
    """The mounts of the pod and what lies in them, all under `root`, which is / but in tests."""

    root: Path = Path("/")

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> "Places":
        """Read SERVING_ROOT."""
        return cls(root=Path(environment.get("SERVING_ROOT") or "/"))

    def at(self, path: str) -> Path:
        """Return where an absolute path of the pod is."""
        return self.root / path.lstrip("/")

    @property
    def models(self) -> Path:
        """Return where weights are downloaded to."""
        return self.at(names.MODELS)

    @property
    def cache(self) -> Path:
        """Return where compiled kernels and changed adapters go."""
        return self.at(names.CACHE)

    @property
    def adapters(self) -> Path:
        """Return the parent of the adapters' directories."""
        return self.at(names.ADAPTERS)

    @property
    def data(self) -> Path:
        """Return where the data to tune with is."""
        return self.at(names.DATA)

    @property
    def results(self) -> Path:
        """Return where tuning writes to."""
        return self.at(names.RESULTS)

    @property
    def inference_config(self) -> Path:
        """Return the user's options of vLLM; the file need not be there."""
        return self.at(names.CONFIG) / names.INFERENCE_CONFIG

    @property
    def training_config(self) -> Path:
        """Return the user's options of tuning; the file need not be there."""
        return self.at(names.CONFIG) / names.TRAINING_CONFIG

    @property
    def registry_secrets(self) -> Path:
        """Return where Docker's configurations with credentials are."""
        return self.at(names.REGISTRY_SECRETS)

    @property
    def status(self) -> Path:
        """Return the file that tells the other processes of the pod how far this one is."""
        return self.at("/tmp/serving-status.json")  # noqa: S108 -- a mount of the pod's own

    @property
    def termination_message(self) -> Path:
        """Return the file that Kubernetes reads when the container has ended."""
        return self.at("/dev/termination-log")
