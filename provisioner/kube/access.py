"""Where the API server is and who we are, once for our own calls and for kopf's watches.

Both must reach the same server by the same credentials: left alone, kopf and the client library choose differently
(host from the environment or by DNS name, kubeconfig or service account first, credential plugins or none).
"""

import os
from pathlib import Path
from typing import Any, Final

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from yaml import YAMLError

__all__ = ["ConfigException", "load_configuration"]

# Connections to the API server at a time, watches aside. asyncio has a buffer of 256 KiB for each that speaks TLS, and
# the memory of a hundred of them, the library's default, never comes back: 30 MiB. So many carry more than a thousand
# requests a second where each takes 15 ms.
CONNECTIONS: Final = 20
# Where the kubelet mounts a pod's service account: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
_TOKEN_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_DEFAULT_KUBECONFIG: Final = "~/.kube/config"
# What the library stumbles over where a file is a directory, is not to be read, or holds something else.
_UNREADABLE: Final = (OSError, YAMLError, AttributeError, KeyError, TypeError, ValueError)


async def load_configuration() -> Any:
    """Return the client configuration: `$KUBECONFIG` where set, else the pod's service account, else `~/.kube/config`.

    Inside a cluster the token file is read again every minute. Raises `ConfigException` where none of the three is
    there or can be read.
    """
    configuration = Configuration(connection_pool_maxsize=CONNECTIONS)
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig and _TOKEN_FILE.exists():
        load_incluster_config(client_configuration=configuration)
    else:
        paths = kubeconfig or _DEFAULT_KUBECONFIG
        if not _is_there(paths):
            # The library warns in a line of its own and then complains of what an empty file would lack.
            raise ConfigException(f"there is no file {paths}")
        try:
            # The path is passed even where it is the default: the library reads the variable once, at its import.
            # What a credential plugin renews stays in memory: the user's file is not ours to write.
            await load_kube_config(config_file=paths, client_configuration=configuration, persist_config=False)
        except _UNREADABLE as error:
            raise ConfigException(f"{paths} is no usable kubeconfig: {error}") from error
    return configuration


def _is_there(paths: str) -> bool:
    return any(Path(path).expanduser().exists() for path in paths.split(os.pathsep))
