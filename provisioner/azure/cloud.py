"""Azure clouds: where ARM and Entra answer, and what a token has to be for."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """One Azure cloud. `endpoint` and `authority` are https origins without a trailing slash."""

    name: str
    endpoint: str
    authority: str
    audience: str

    @property
    def scope(self) -> str:
        """Return the OAuth scope of a token for ARM."""
        return f"{self.audience}/.default"


# As azure.mgmt.core.tools.get_arm_endpoints and azure.identity.AzureAuthorityHosts have them.
_KNOWN: Final = (
    Cloud(
        name="public",
        endpoint="https://management.azure.com",
        authority="https://login.microsoftonline.com",
        audience="https://management.azure.com",
    ),
    Cloud(
        name="usgovernment",
        endpoint="https://management.usgovcloudapi.net",
        authority="https://login.microsoftonline.us",
        audience="https://management.core.usgovcloudapi.net",
    ),
    Cloud(
        name="china",
        endpoint="https://management.chinacloudapi.cn",
        authority="https://login.chinacloudapi.cn",
        audience="https://management.chinacloudapi.cn",
    ),
)
CUSTOM: Final = "custom"
NAMES: Final = (*(cloud.name for cloud in _KNOWN), CUSTOM)


def cloud_for(
    name: str, *, endpoint: str | None = None, authority: str | None = None, audience: str | None = None
) -> Cloud:
    """Return the cloud of that name (`public`, `usgovernment`, `china`, `custom`, in any case).

    `custom` (Azure Stack, air-gapped clouds, a private ARM front door) needs `endpoint`; its audience is the endpoint
    and its authority the public one unless given. The authority of a known cloud may be replaced, nothing else.
    Raises ValueError, saying what it may be.
    """
    lowered = name.strip().lower()
    if lowered == CUSTOM:
        if not endpoint:
            raise ValueError(
                "cloud 'custom' needs the ARM endpoint, such as https://management.local.azurestack.external"
            )
        origin = _origin(endpoint, what="ARM endpoint")
        return Cloud(
            name=CUSTOM,
            endpoint=origin,
            authority=_origin(authority or _KNOWN[0].authority, what="authority host"),
            # An audience is an identifier, not an address: some of Azure Stack's are no URL of any host.
            audience=(audience or origin).rstrip("/"),
        )
    for cloud in _KNOWN:
        if cloud.name == lowered:
            if endpoint or audience:
                raise ValueError(f"an ARM endpoint or audience goes with cloud 'custom' only, not with {cloud.name!r}")
            if authority:
                origin = _origin(authority, what="authority host")
                return Cloud(name=cloud.name, endpoint=cloud.endpoint, authority=origin, audience=cloud.audience)
            return cloud
    raise ValueError(f"cloud {name!r} is unknown: it may be {', '.join(NAMES)}")


def _origin(url: str, *, what: str) -> str:
    """Return scheme, host and port; a token must never go out over plain http or to a host read out of a path."""
    # Not quoted in the errors: what stands before an `@` may be a password.
    wanted = f"{what} must be an https URL of a host, such as https://management.azure.com"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{wanted}: {error}") from error
    host = parts.hostname or ""
    if parts.scheme != "https" or not _HOST.fullmatch(host) or "@" in parts.netloc:
        raise ValueError(f"{wanted}, without user and password")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"{wanted}, without a path")
    return f"https://{host}:{port}" if port else f"https://{host}"
