"""What users write: NodeClaims, KAITO's Workspaces and KaitoNodeClasses, out of YAML files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

import yaml

from provisioner.apis import names
from provisioner.apis.nodeclaim import NodeClaim, parse_nodeclaim
from provisioner.commands.exits import Trouble
from provisioner.commands.text import clean, cut

STDIN: Final = "-"
_WORKSPACE: Final = "Workspace"
_WORKSPACE_VERSIONS: Final = tuple(f"{names.KAITO_GROUP}/{version}" for version in ("v1alpha1", "v1beta1"))
# An AKS cluster has 100 agent pools at most unless Azure has raised that, and a claim is one.
_MAX_COUNT: Final = 1000
# Characters; all that a Kubernetes cluster would take in one request is 3 MiB.
_MAX_FILE: Final = 16 << 20

# The UID is the API server's to give.
_NO_UID: Final = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One claim to plan for. `is_named` is False where its name is made up when it is created."""

    label: str
    source: str
    kind: str
    claim: NodeClaim
    is_named: bool = True


@dataclass(frozen=True, kw_only=True)
class Documents:
    """What the files hold. `node_classes` are raw, by name; `notes` say what was passed over."""

    wishes: tuple[Wish, ...]
    node_classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class _Read:
    """Files being read."""

    def __init__(self) -> None:
        self.wishes: list[Wish] = []
        self.node_classes: dict[str, Mapping[str, Any]] = {}
        self.notes: list[str] = []

    def take(self, raw: Mapping[str, Any], *, source: str) -> None:
        version, kind = _string(raw.get("apiVersion")), _string(raw.get("kind"))
        if (version, kind) == (names.NODECLAIM_API_VERSION, names.NODECLAIM_KIND):
            self.wishes.append(_claim(raw, source=source))
        elif kind == _WORKSPACE and version in _WORKSPACE_VERSIONS:
            self.wishes += _workspace(raw, source=source)
            self._note_storage(raw, source=source)
        elif (version.partition("/")[0], kind) == (names.KAITO_GROUP, names.NODECLASS_KIND):
            self.node_classes[_name(raw, source=source)] = raw
        else:
            what = cut(clean(f"{version} {kind}"), 80) or "without apiVersion and kind"
            self.notes.append(f"{source}: an object {what} is passed over; NodeClaims and Workspaces are planned.")

    def _note_storage(self, raw: Mapping[str, Any], *, source: str) -> None:
        self.notes.append(
            f"{source}: Workspace {_name(raw, source=source)}: KAITO names its claims itself and asks for an OS disk "
            "as large as the model needs; vLLM presets get as many nodes as KAITO reckons, whatever resource.count is."
        )


def read_files(paths: Sequence[str], *, stdin: TextIO) -> Documents:
    """Read all documents of all files; `-` is standard input. Raises Trouble."""
    read = _Read()
    for path in dict.fromkeys(paths):
        text = _text(path, stdin=stdin)
        source = "standard input" if path == STDIN else path
        for raw in _objects(text, source=source):
            read.take(raw, source=source)
    if not read.wishes:
        raise Trouble(
            f"{', '.join(paths)}: no NodeClaim ({names.NODECLAIM_API_VERSION}) and no Workspace "
            f"({' or '.join(_WORKSPACE_VERSIONS)}) in there."
        )
    return Documents(wishes=tuple(read.wishes), node_classes=read.node_classes, notes=tuple(dict.fromkeys(read.notes)))


def _text(path: str, *, stdin: TextIO) -> str:
    try:
        if path == STDIN:
            text = stdin.read(_MAX_FILE + 1)
        else:
            with Path(path).open(encoding="utf-8") as file:
                text = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise Trouble(f"{path}: is not UTF-8 text.") from error
    if len(text) > _MAX_FILE:
        raise Trouble(f"{path}: is larger than {_MAX_FILE >> 20} MiB.")
    return text


def _objects(text: str, *, source: str) -> Iterator[Mapping[str, Any]]:
    try:
        # Not libyaml's loader, which is faster: it composes without a limit of depth, and ends the process on a hostile
        # file.
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise Trouble(f"{source}: is no YAML: {error}") from error
    except (RecursionError, ValueError) as error:
        # Nested a thousand deep, or a date such as 2026-99-99.
        raise Trouble(f"{source}: is no YAML that can be read: {error}") from error
    yield from _unfolded(documents, source=source)


def _unfolded(documents: Iterable[object], *, source: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects, those of lists (as `kubectl get -o yaml` writes them) one by one."""
    for document in documents:
        if document is None:
            continue
        if not isinstance(document, dict):
            raise Trouble(f"{source}: a document in there is no object with apiVersion and kind.")
        items = document.get("items")
        if _string(document.get("kind")).endswith("List") and isinstance(items, list):
            for item in items:
                if not isinstance(item, dict):
                    raise Trouble(f"{source}: an item of a list in there is no object.")
                yield item
        else:
            yield document


def _string(value: object) -> str:
    # Of anything else nothing is shown: what YAML's aliases make of a few lines may have no end.
    return value if isinstance(value, str) else ""


def _metadata(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = raw.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _name(raw: Mapping[str, Any], *, source: str) -> str:
    name = _metadata(raw).get("name")
    if not isinstance(name, str) or not name:
        raise Trouble(f"{source}: a {_string(raw.get('kind'))} has no metadata.name, or one that is no string.")
    return name


def _claim(raw: Mapping[str, Any], *, source: str) -> Wish:
    prefix = _metadata(raw).get("generateName")
    is_named = "name" in _metadata(raw) or not isinstance(prefix, str)
    name = _name(raw, source=source) if is_named else f"{prefix}xxxxx"
    return Wish(
        label=name,
        source=source,
        kind=names.NODECLAIM_KIND,
        claim=_parsed({**raw, "metadata": {**_metadata(raw), "name": name}}, source=source),
        is_named=is_named,
    )


def _parsed(raw: Mapping[str, Any], *, source: str) -> NodeClaim:
    # Of a claim that was read out of a cluster, too, it is planned what a new one would get.
    metadata = {
        key: value for key, value in raw["metadata"].items() if key in ("name", "labels", "annotations", "finalizers")
    }
    try:
        return parse_nodeclaim({"metadata": {**metadata, "uid": _NO_UID}, "spec": raw.get("spec")})
    except (TypeError, ValueError) as error:
        raise Trouble(f"{source}: {clean(raw['metadata']['name'])} cannot be read: {error}") from error


def _workspace(raw: Mapping[str, Any], *, source: str) -> list[Wish]:
    """Return the claims that KAITO writes for a Workspace, but for what depends on the model."""
    name = _name(raw, source=source)
    resource = raw.get("resource")
    if not isinstance(resource, dict):
        raise Trouble(f"{source}: Workspace {name} has no resource.")
    size = resource.get("instanceType")
    if not isinstance(size, str) or not size.strip():
        raise Trouble(
            f"{source}: Workspace {name} names no resource.instanceType: only named sizes can be planned. Write one, "
            "or plan a NodeClaim with the requirements that you have."
        )
    count = resource.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MAX_COUNT:
        shown = f", not {count}" if isinstance(count, int | float | str) else ""
        raise Trouble(f"{source}: Workspace {name}: resource.count must be 1 to {_MAX_COUNT}{shown}.")
    selector = resource.get("labelSelector")
    labels = selector.get("matchLabels") if isinstance(selector, dict) else None
    namespace = _metadata(raw).get("namespace")
    claim = {
        "metadata": {
            "name": name,
            "labels": {
                names.NODEPOOL_LABEL: "kaito",
                **(labels if isinstance(labels, dict) else {}),
                names.WORKSPACE_LABEL: name,
                "kaito.sh/workspacenamespace": namespace if isinstance(namespace, str) else "default",
            },
            "annotations": _image_family(raw),
        },
        "spec": {
            "nodeClassRef": {"group": names.KAITO_GROUP, "kind": names.NODECLASS_KIND, "name": "default"},
            "requirements": [
                {"key": names.INSTANCE_TYPE_LABEL, "operator": "In", "values": [size]},
                {"key": names.OS_LABEL, "operator": "In", "values": ["linux"]},
                {"key": names.SKU_NAME_LABEL, "operator": "In", "values": [size]},
            ],
            "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
        },
    }
    parsed = _parsed(claim, source=source)
    return [
        Wish(
            label=name if count == 1 else f"{name} {number}/{count}",
            source=source,
            kind=_WORKSPACE,
            claim=parsed,
            is_named=False,
        )
        for number in range(1, count + 1)
    ]


def _image_family(raw: Mapping[str, Any]) -> dict[str, str]:
    annotations = _metadata(raw).get("annotations")
    family = annotations.get(names.NODE_IMAGE_FAMILY_ANNOTATION) if isinstance(annotations, dict) else None
    return {names.NODE_IMAGE_FAMILY_ANNOTATION: family} if isinstance(family, str) else {}
