"""A pod's volumes as directories, and a container's mounts as links to them."""

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from fakes.containers.spec import ConfigError, References, field_of
from fakes.nodes.api import Object

_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")


async def fill(pod: Object, folder: Path, *, references: References) -> None:
    """Make the pod's volumes, each a directory in the folder: emptyDir, configMap, secret and projected.

    Of what admission adds to every pod, the token is left out: nothing that runs here asks the API server.

    Raises ConfigError: of another kind, or what it is to hold is not there.
    """
    for volume in pod["spec"].get("volumes") or ():
        directory = folder / volume["name"]
        directory.mkdir(parents=True, exist_ok=True)
        for path, data in (await _files(pod, volume, references)).items():
            target = directory / path
            if ".." in target.parts or not target.is_relative_to(directory):
                raise ConfigError(f"volume {volume['name']}: {path} lies outside of it")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


async def _files(pod: Object, volume: Object, references: References) -> Mapping[str, bytes]:
    if "emptyDir" in volume:
        return {}
    if "configMap" in volume:
        return await _keys("configmaps", volume["configMap"], volume["configMap"]["name"], references)
    if "secret" in volume:
        return await _keys("secrets", volume["secret"], volume["secret"]["secretName"], references)
    found: dict[str, bytes] = {}
    for source in (volume.get("projected") or {"sources": [{}]})["sources"]:
        if "secret" in source:
            found |= await _keys("secrets", source["secret"], source["secret"]["name"], references)
        elif "configMap" in source:
            found |= await _keys("configmaps", source["configMap"], source["configMap"]["name"], references)
        elif "downwardAPI" in source:
            items = source["downwardAPI"].get("items") or ()
            found |= {item["path"]: field_of(pod, item["fieldRef"]["fieldPath"]).encode() for item in items}
        elif "serviceAccountToken" not in source:
            raise ConfigError(f"volume {volume['name']} is of a kind that is not known to this kubelet")
    return found


async def _keys(kind: str, source: Object, name: str, references: References) -> Mapping[str, bytes]:
    optional = bool(source.get("optional"))
    data = await references.data(kind, name, optional=optional)
    items = source.get("items")
    if items is None:
        return {key: value for key, value in data.items() if _KEY.fullmatch(key)}
    missing = [item["key"] for item in items if item["key"] not in data]
    if missing and not optional:
        raise ConfigError(f"references non-existent {kind.removesuffix('s')} key: {missing[0]}")
    return {item["path"]: data[item["key"]] for item in items if item["key"] in data}


def mount(container: Object, root: Path, *, volumes: Path) -> tuple[str, ...]:
    """Make the container's root anew: links to its volumes where it mounts them. Returns the paths of its mounts."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    mounts: Iterable[Object] = sorted(container.get("volumeMounts") or (), key=lambda one: len(one["mountPath"]))
    for one in mounts:
        source = volumes / one["name"] / one.get("subPath", "")
        # Of a volume's parts those that are no files of it are directories, as the kubelet makes them.
        if not source.exists():
            source.mkdir(parents=True)
        link = root / one["mountPath"].strip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)
    return tuple(one["mountPath"] for one in mounts)
