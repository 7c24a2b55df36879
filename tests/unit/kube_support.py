"""What tests of API access share."""

import json
from pathlib import Path


def write_kubeconfig(path: Path, url: str, **user: object) -> None:
    """Write a kubeconfig with one cluster and one user, such as `token="t"`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cluster = {"server": url, "insecure-skip-tls-verify": True}
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "test", "user": user}],
            }
        )
    )
