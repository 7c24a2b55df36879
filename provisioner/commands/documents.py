"""What users write: NodeClaims, KAITO's Workspaces and KaitoNodeClasses, out of YAML files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

import yaml

from provisioner.apis import names
from provisioner.apis.nodeclaim import NodeClaim, parse_nodeclaim
from provisioner.apis.workspace import Workspace, parse_workspace
from provisioner.commands.exits import Trouble
from provisioner.commands.text import clean, cut

STDIN: Final = "-"
_WORKSPACE_VERSIONS: Final = tuple(f"{names.KAITO_GROUP}/{version}" for version in ("v1alpha1", "v1beta1"))
# An AKS cluster has 100 agent pools at most unless Azure has raised that, and a claim is one.
_MAX_COUNT: Final = 1000
# Characters; all that a Kubernetes cluster would take in one request is 3 MiB.
_MAX_FILE: Final = 16 << 20

# Where kubectl puts what names none, unless a context says otherwise.
_DEFAULT_NAMESPACE: Final = "default"
# The UID is the API server's to give.
_NO_UID: Final = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One claim to plan for. `is_named` is False where its name is made up when it is created.

    `workspace` is that by which it is written, empty where it is in a file itself.
    """

    label: str
    source: str
    claim: NodeClaim
    is_named: bool = True
    workspace: str = ""


@dataclass(frozen=True, kw_only=True)
class WorkspaceWish:
    """One Workspace to plan for: how many claims it gets, and of which size, follows from its model."""

    label: str
    source: str
    workspace: Workspace


@dataclass(frozen=True, kw_only=True)
class Documents:
    """What the files hold. `node_classes` are raw, by name; `notes` say what was passed over.

    `configs` are the data of ConfigMaps by namespace and name.
    """

    wishes: tuple[Wish | WorkspaceWish, ...]
    node_classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    configs: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class _Read:
    """Files being read."""

    def __init__(self) -> None:
        self.wishes: list[Wish | WorkspaceWish] = []
        self.node_classes: dict[str, Mapping[str, Any]] = {}
        self.configs: dict[tuple[str, str], Mapping[str, str]] = {}
        self.notes: list[str] = []

    def take(self, raw: Mapping[str, Any], *, source: str) -> None:
        version, kind = _string(raw.get("apiVersion")), _string(raw.get("kind"))
        if (version, kind) == (names.NODECLAIM_API_VERSION, names.NODECLAIM_KIND):
            self.wishes.append(_claim(raw, source=source))
        elif kind == names.WORKSPACE_KIND and version in _WORKSPACE_VERSIONS:
            self.wishes.append(_workspace(raw, source=source))
        elif (version.partition("/")[0], kind) == (names.KAITO_GROUP, names.NODECLASS_KIND):
            self.node_classes[_name(raw, source=source)] = raw
        elif (version, kind) == ("v1", "ConfigMap"):
            self.configs[_namespace(raw), _name(raw, source=source)] = _texts(raw.get("data"))
        else:
            what = cut(clean(f"{version} {kind}"), 80) or "without apiVersion and kind"
            self.notes.append(f"{source}: an object {what} is passed over; NodeClaims and Workspaces are planned.")


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
    return Documents(
        wishes=tuple(read.wishes),
        node_classes=read.node_classes,
        configs=read.configs,
        notes=tuple(dict.fromkeys(read.notes)),
    )


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
        claim=as_new({**raw, "metadata": {**_metadata(raw), "name": name}}, source=source),
        is_named=is_named,
    )


def as_new(raw: Mapping[str, Any], *, source: str) -> NodeClaim:
    """Return a claim as it is before anybody has looked at it. Raises Trouble."""
    # Of a claim that was read out of a cluster, too, it is planned what a new one would get.
    metadata = {
        key: value for key, value in raw["metadata"].items() if key in ("name", "labels", "annotations", "finalizers")
    }
    try:
        return parse_nodeclaim({"metadata": {**metadata, "uid": _NO_UID}, "spec": raw.get("spec")})
    except (TypeError, ValueError) as error:
        raise Trouble(f"{source}: {clean(raw['metadata']['name'])} cannot be read: {error}") from error


def _workspace(raw: Mapping[str, Any], *, source: str) -> WorkspaceWish:
    """Return the Workspace as a new one: of one that was read out of a cluster nothing that was decided counts."""
    name = _name(raw, source=source)
    resource = raw.get("resource")
    if not isinstance(resource, dict):
        raise Trouble(f"{source}: Workspace {name} has no resource.")
    count = resource.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MAX_COUNT:
        shown = f", not {count}" if isinstance(count, int | float | str) else ""
        raise Trouble(f"{source}: Workspace {name}: resource.count must be 1 to {_MAX_COUNT}{shown}.")
    metadata = {
        "name": name,
        "namespace": _namespace(raw),
        "uid": _NO_UID,
        **{key: _texts(_metadata(raw).get(key)) for key in ("labels", "annotations")},
    }
    spec = {part: raw[part] for part in ("resource", "inference", "tuning") if part in raw}
    return WorkspaceWish(label=name, source=source, workspace=parse_workspace({"metadata": metadata, **spec}))


def _namespace(raw: Mapping[str, Any]) -> str:
    return _string(_metadata(raw).get("namespace")) or _DEFAULT_NAMESPACE


def _texts(value: object) -> dict[str, str]:
    # What is no text is left out, and not made one: see _string.
    return (
        {key: text for key, text in value.items() if _string(key) and _string(text)} if isinstance(value, dict) else {}
    )
