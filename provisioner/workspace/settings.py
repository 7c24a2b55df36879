"""Every setting of `provisioner workspace`: name, default, unit, and why."""

from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import field_validator

from provisioner import __version__
from provisioner.settings import ControllerSettings, setting

NONE: Final = "none"
_HUB: Final = "https://huggingface.co"


class WorkspaceSettings(ControllerSettings):
    """The validated settings. Durations are in seconds."""

    serving_image: str = setting(
        f"gpu-provisioner-serving:{__version__}",
        "SERVING_IMAGE",
        help="image of the pods; of the same release as this program, for they have a language of their own",
        min_length=1,
        max_length=1024,
    )
    serving_pull_secrets: str = setting(
        "", "SERVING_IMAGE_PULL_SECRETS", help="Secrets in the Workspaces' namespaces to pull it with, by commas"
    )
    node_source: Literal["claims", "brought"] = setting(
        "claims",
        "WORKSPACE_NODES",
        help="claims (NodeClaims are written for what Nodes brought by others do not cover) or brought (none are)",
    )
    hub_endpoint: str = setting(
        _HUB, "HF_ENDPOINT", help="address where models are looked up that are no presets, or none"
    )
    workers: int = setting(20, "RECONCILE_WORKERS", help="Workspaces reconciled side by side", ge=1, le=1000)
    resync: float = setting(
        300.0, "RESYNC_SECONDS", help="pace of the full lists that find what the watches have missed", ge=1.0, le=3600.0
    )

    @field_validator("hub_endpoint")
    @classmethod
    def _address(cls, value: str) -> str:
        if value.lower() == NONE:
            return NONE
        parts = urlsplit(value)
        if parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("must be an https:// address, or none")
        return value.rstrip("/")

    @property
    def pull_secrets(self) -> tuple[str, ...]:
        """Return the names of the Secrets to pull the serving image with."""
        return tuple(name.strip() for name in self.serving_pull_secrets.split(",") if name.strip())

    @property
    def mirror(self) -> str:
        """Return where pods are to find models, empty where that is the Hugging Face Hub itself."""
        return "" if self.hub_endpoint in (_HUB, NONE) else self.hub_endpoint

    @property
    def hub(self) -> str:
        """Return where models are looked up, empty where they are not."""
        return "" if self.hub_endpoint == NONE else self.hub_endpoint
