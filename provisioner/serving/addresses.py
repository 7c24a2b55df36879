"""Which addresses data may be fetched from: those of the internet, and none inside of the cluster or of its cloud.

A Workspace's author is not who runs the cluster. What is checked is what is connected to: names are resolved here and
the connection is made to those addresses, so a name that changes its mind in between gains nothing.
"""

import ipaddress
import socket
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from provisioner.serving.problem import Problem

# Translated to IPv4 by the network: RFC 6052, and its local-use prefix, RFC 8215.
_NAT64: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
# Azure's own: DNS and health of the platform, and the wire server behind it. Public by number alone.
_PLATFORM: Final = frozenset({ipaddress.ip_address("168.63.129.16")})


class NotPublic(OSError):
    """The name leads to an address that nothing may be fetched from."""


def is_public(text: str) -> bool:
    """Tell whether the address is one of the internet."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if address.sixtofour is not None or address.teredo is not None:
            return False
        if any(address in network for network in _NAT64):
            return False
    return address.is_global and not address.is_multicast and address not in _PLATFORM


class PublicResolver(AbstractResolver):
    """Resolves names to addresses of the internet alone."""

    def __init__(self) -> None:
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses. Raises NotPublic, OSError."""
        found = await self._resolver.resolve(host, port, family)
        public = [entry for entry in found if is_public(entry["host"])]
        if not public:
            raise NotPublic(f"{host} leads to no public address")
        return public

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


def check(url: URL, *, any_address: bool) -> None:
    """Raise Problem if nothing may be fetched from there; names are looked at when they are resolved."""
    if url.scheme not in ("http", "https") or not url.host:
        raise Problem(f"{shown(url)} is no address of http or https")
    # What is an address already is never resolved.
    looks_like_address = url.host.replace(".", "").isdecimal() or ":" in url.host
    if not any_address and looks_like_address and not is_public(url.host):
        raise Problem(f"{shown(url)} is not a public address")


def shown(url: URL) -> str:
    """Return a URL as it may be shown: its query and its user may be secrets."""
    return f"{url.scheme}://{url.host}{f':{url.explicit_port}' if url.explicit_port else ''}{url.path}"[:200]
