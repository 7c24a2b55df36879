"""Certificates, tokens and kubeconfigs of one control plane. All of them are made anew and are of no use elsewhere."""

import base64
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ADMIN_USER: Final = "admin"
CONTROLLER_MANAGER_USER: Final = "system:kube-controller-manager"
SCHEDULER_USER: Final = "system:kube-scheduler"

# User -> groups. The controller manager acts for all its controllers here: with a service account for each of them,
# as kubeadm sets it up, it waits for thirty accounts and tokens before the first one works. The scheduler has what it
# needs by the role that the API server binds to its name.
_USERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {ADMIN_USER: ("system:masters",), CONTROLLER_MANAGER_USER: ("system:masters",), SCHEDULER_USER: ()}
)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Files that the components and their users read. The kubeconfigs are written once the address is known."""

    ca: Path
    certificate: Path
    key: Path
    service_account_key: Path
    token_file: Path
    tokens: Mapping[str, str]
    kubeconfigs: Mapping[str, Path]


def create(folder: Path) -> Credentials:
    """Write certificates, keys and tokens into a folder."""
    authority = trustme.CA(organization_name="control plane on loopback", key_type=trustme.KeyType.ECDSA)
    # One certificate for all that listen: they are one trust domain on one address.
    leaf = authority.issue_cert("127.0.0.1", "localhost", "kubernetes.default.svc", key_type=trustme.KeyType.ECDSA)
    tokens = {user: secrets.token_urlsafe(32) for user in _USERS}
    lines = [f'{tokens[user]},{user},{user},"{",".join(groups)}"\n' for user, groups in _USERS.items()]
    account_key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    return Credentials(
        ca=_write(folder / "ca.crt", authority.cert_pem.bytes()),
        certificate=_write(folder / "serving.crt", b"".join(pem.bytes() for pem in leaf.cert_chain_pems)),
        key=_write(folder / "serving.key", leaf.private_key_pem.bytes()),
        service_account_key=_write(folder / "service-account.key", account_key),
        token_file=_write(folder / "tokens.csv", "".join(lines).encode()),
        tokens=tokens,
        kubeconfigs={
            ADMIN_USER: folder / "kubeconfig",
            CONTROLLER_MANAGER_USER: folder / "controller-manager.kubeconfig",
            SCHEDULER_USER: folder / "scheduler.kubeconfig",
        },
    )


def write_kubeconfigs(credentials: Credentials, *, url: str) -> None:
    """Write the kubeconfigs of all users for a server."""
    for user, path in credentials.kubeconfigs.items():
        write_kubeconfig(path, url=url, ca=credentials.ca, user=user, token=credentials.tokens[user])


def write_kubeconfig(path: Path, *, url: str, ca: Path, user: str, token: str, namespace: str = "default") -> Path:
    """Write a kubeconfig that needs no other file. It is JSON, which every reader of YAML takes."""
    name = "loopback"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": name,
                "cluster": {
                    "server": url,
                    "certificate-authority-data": base64.b64encode(ca.read_bytes()).decode(),
                },
            }
        ],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user, "namespace": namespace}}],
        "current-context": name,
    }
    return _write(path, json.dumps(content, indent=2).encode())


def _write(path: Path, content: bytes) -> Path:
    """Write a file that nobody else can read, not even for the moment before its mode is set."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return path
