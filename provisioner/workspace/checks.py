"""What a Workspace must not say, found without asking anybody. Pure.

Our CRD refuses most of it at once; Workspaces that were stored under KAITO's have got past that.

Each finding names the field and says what to do.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import urlsplit

from provisioner.apis import names
from provisioner.apis.workspace import Adapter, DataDestination, DataSource, LabelSelector, PresetSpec, Workspace
from provisioner.gpus import presets
from provisioner.workspace import references
from provisioner.workspace.view import Problem

MAX_ADAPTERS: Final = 10
_TERMS: Final = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
_TEMPLATE: Final[Mapping[str, type]] = {
    "metadata": dict,
    "metadata.labels": dict,
    "spec": dict,
    "spec.tolerations": list,
    **{_TERMS.rsplit(".", level)[0]: dict for level in (3, 2, 1)},
    _TERMS: list,
}
_INVALID: Final = "InvalidWorkspace"
_ADAPTER_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", re.ASCII)
# As the Hub has them: no part begins or ends with a dot or dash, which keeps paths of files out as well.
_MODEL_PART: Final = r"\w(?:[\w.-]{0,94}\w)?"
_MODEL_ID: Final = re.compile(f"{_MODEL_PART}/{_MODEL_PART}", re.ASCII)
_SELECTABLE: Final = ("In", "NotIn", "Exists", "DoesNotExist")
# Kubernetes' own: labels, and names of ConfigMaps and Secrets.
_LABEL_KEY: Final = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?", re.ASCII
)
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_OBJECT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
# Pods of a StatefulSet are labelled by its name, a dash and ten letters, and a label has 63 at most.
_LONGEST_NAME: Final = 52
# As in our CRD; KAITO's has no limit.
_MOST_NODES: Final = 1000


def check(workspace: Workspace) -> Problem | None:
    """Return the first thing that is wrong with the Workspace as it is written, None where nothing is."""
    return next(_problems(workspace), None)


def is_known_model(name: str) -> bool:
    """Tell whether a preset of that name is built in, or the name may be one of the Hugging Face Hub."""
    return presets.find(name) is not None or is_hub_id(name)


def is_hub_id(name: str) -> bool:
    """Tell whether the name may be a model's of the Hugging Face Hub."""
    return bool(_MODEL_ID.fullmatch(name)) and ".." not in name


def _problems(workspace: Workspace) -> Iterator[Problem]:
    if workspace.spec_error:
        yield _invalid(f"{workspace.spec_error}. Correct it.")
        return
    if (workspace.inference is None) is (workspace.tuning is None):
        both = "both are" if workspace.inference is not None else "neither is"
        yield _invalid(f"inference, tuning: {both} there; a Workspace has one of them.")
        return
    yield from _of_resource(workspace)
    yield from _of_names(workspace)
    yield from _of_inference(workspace)
    yield from _of_tuning(workspace)


def _of_resource(workspace: Workspace) -> Iterator[Problem]:
    resource = workspace.resource
    if resource.count is not None and not 1 <= resource.count <= _MOST_NODES:
        yield _invalid(f"resource.count: {resource.count} is no number from 1 to {_MOST_NODES}. Leave it out.")
    annotated = workspace.annotations.get(names.NODE_COUNT_ANNOTATION, "")
    if annotated and not (re.fullmatch("[0-9]{1,4}", annotated, re.ASCII) and 1 <= int(annotated) <= _MOST_NODES):
        yield _invalid(
            f"metadata.annotations: {names.NODE_COUNT_ANNOTATION} is {annotated[:40]!r}, no number from 1 to "
            f"{_MOST_NODES}."
        )
    yield from _of_selector(resource.label_selector)
    partition = resource.partition
    if partition is not None and partition.mode == "mig":
        yield _invalid(
            "resource.partition.mode: mig is not supported; leave partition out, or use whole GPUs (accelerator)."
        )


def _of_selector(selector: LabelSelector) -> Iterator[Problem]:
    for key, value in selector.match_labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            yield _invalid(f"resource.labelSelector.matchLabels: {key[:80]}={value[:80]} is no label.")
    for expression in selector.match_expressions:
        where = "resource.labelSelector.matchExpressions"
        if expression.operator not in _SELECTABLE:
            yield _invalid(
                f"{where}: operator {expression.operator[:40]!r} of {expression.key[:80]} is none of "
                f"{', '.join(_SELECTABLE)}."
            )
        elif (expression.operator in ("In", "NotIn")) is not bool(expression.values):
            yield _invalid(
                f"{where}: {expression.operator} of {expression.key[:80]} "
                f"{'takes no values' if expression.values else 'needs values'}."
            )
        if not _LABEL_KEY.fullmatch(expression.key) or not all(map(_LABEL_VALUE.fullmatch, expression.values)):
            yield _invalid(f"{where}: {expression.key[:80]} or one of its values is no label.")


def _of_names(workspace: Workspace) -> Iterator[Problem]:
    config = references.config_name(workspace)
    if config and not _OBJECT_NAME.fullmatch(config):
        field = "tuning.config" if workspace.tuning else "inference.config"
        yield _invalid(f"{field}: {config[:80]!r} is no name of a ConfigMap.")
    for secret in references.secrets(workspace):
        if not _OBJECT_NAME.fullmatch(secret.name):
            yield _invalid(f"{secret.field}: {secret.name[:80]!r} is no name of a Secret.")


def _of_inference(workspace: Workspace) -> Iterator[Problem]:
    inference = workspace.inference
    if inference is None:
        return
    if (inference.preset is None) is (inference.template is None):
        both = "both are" if inference.preset is not None else "neither is"
        yield _invalid(f"inference.preset, inference.template: {both} there; one of them is needed.")
        return
    if len(workspace.name) > _LONGEST_NAME:
        yield _invalid(
            f"metadata.name: it has {len(workspace.name)} characters, and pods can be labelled with {_LONGEST_NAME} of "
            "them at most. Write a new Workspace with a shorter name."
        )
    if inference.preset is not None:
        yield from _of_preset(inference.preset, field="inference.preset")
    if inference.template is not None:
        yield from _of_template(inference.template)
    if inference.preset is None and inference.adapters:
        yield _invalid("inference.adapters: they are for presets; a template brings its own.")
    if len(inference.adapters) > MAX_ADAPTERS:
        yield _invalid(f"inference.adapters: {len(inference.adapters)} are there, at most {MAX_ADAPTERS} may be.")
    seen: set[str] = set()
    for number, adapter in enumerate(inference.adapters):
        yield from _of_adapter(adapter, field=f"inference.adapters[{number}]", seen=seen)


def _of_adapter(adapter: Adapter, *, field: str, seen: set[str]) -> Iterator[Problem]:
    name = adapter.source.name
    if not _ADAPTER_NAME.fullmatch(name):
        yield _invalid(
            f"{field}.source.name: {name[:80]!r} is no name; the model with the adapter is served under it: lower case "
            "letters, digits, - and . only."
        )
    if name in seen:
        yield _invalid(f"{field}.source.name: {name!r} is there twice.")
    seen.add(name)
    if adapter.source.urls:
        yield _invalid(f"{field}.source.urls: an adapter comes from an image or a volumeSource.")
    elif bool(adapter.source.image) is (adapter.source.volume is not None):
        yield _invalid(f"{field}.source: needs image or volumeSource, and one of them.")
    try:
        strength = Decimal(adapter.strength) if adapter.strength else Decimal(1)
    except InvalidOperation:
        strength = Decimal(-1)
    if not (strength.is_finite() and 0 <= strength <= 1):
        yield _invalid(f"{field}.strength: {adapter.strength[:40]!r} is no number from 0 to 1.")


def _of_tuning(workspace: Workspace) -> Iterator[Problem]:
    tuning = workspace.tuning
    if tuning is None:
        return
    if tuning.preset is None:
        yield _invalid("tuning.preset is missing: name the model that is to be tuned.")
        return
    yield from _of_preset(tuning.preset, field="tuning.preset")
    preset = presets.find(tuning.preset.name)
    if preset is not None and not preset.tuning:
        able = ", ".join(found.aliases[0] for found in presets.presets() if found.tuning)
        yield _invalid(f"tuning.preset.name: {tuning.preset.name} cannot be tuned here. Those that can: {able}.")
    if tuning.method.lower() not in ("lora", "qlora"):
        yield _invalid(f"tuning.method: {tuning.method[:40]!r} is neither lora nor qlora.")
    if workspace.resource.count not in (None, 1):
        yield _invalid(f"resource.count: {workspace.resource.count}, and tuning runs on one Node. Leave it out.")
    yield from _of_input(tuning.input)
    yield from _of_output(tuning.output)


def _of_preset(named: PresetSpec, *, field: str) -> Iterator[Problem]:
    yield from _of_model(named.name, field=f"{field}.name")
    preset = presets.find(named.name)
    if preset is not None and preset.gated and not named.options.model_access_secret:
        yield _invalid(
            f"{field}.presetOptions.modelAccessSecret is missing: {preset.name} is to be had with a token alone. Name "
            "a Secret with the key HF_TOKEN."
        )


def _of_template(template: Mapping[str, Any]) -> Iterator[Problem]:
    """Look at what the template is merged with ours in; the rest is the API server's to judge."""
    for path, kind in _TEMPLATE.items():
        value: Any = template
        for step in path.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, kind):
            yield _invalid(f"inference.template.{path}: must be a {'list' if kind is list else 'map'}.")
            return
    terms = template
    for step in _TERMS.split("."):
        terms = terms.get(step) or {}
    for term in terms or ():
        if not isinstance(term, Mapping) or not isinstance(term.get("matchExpressions") or [], list):
            yield _invalid(f"inference.template.{_TERMS}: must be a list of node selector terms.")


def _of_model(name: str, *, field: str) -> Iterator[Problem]:
    if not is_known_model(name):
        known = ", ".join(preset.aliases[0] for preset in presets.presets())
        yield Problem(
            reason="UnknownPreset",
            message=f"{field}: {name[:120]!r} is no preset. Presets: {known}; or a Hugging Face ID such as "
            "microsoft/phi-4.",
        )


def _of_input(source: DataSource | None) -> Iterator[Problem]:
    if source is None or [bool(source.urls), bool(source.image), source.volume is not None].count(True) != 1:
        yield _invalid("tuning.input: needs urls, image or volumeSource, and one of them.")
        return
    for number, url in enumerate(source.urls):
        if not _is_public(url):
            # Not the address itself: it may carry a signature.
            yield _invalid(
                f"tuning.input.urls[{number}]: must be http or https and lead to a host outside of the cluster."
            )


def _of_output(output: DataDestination | None) -> Iterator[Problem]:
    if output is None or bool(output.image) is (output.volume is not None):
        yield _invalid("tuning.output: needs image or volumeSource, and one of them.")
    elif output.image and not output.image_push_secret:
        yield _invalid("tuning.output.imagePushSecret is missing: it says how output.image is pushed.")


def _is_public(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    host = host.rstrip(".")
    if parts.scheme not in ("http", "https") or not host:
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        pass
    # One label alone is a Service of the same namespace; numbers that are no address are one to many a client.
    last = host.rpartition(".")[2]
    return "." in host and not last[0].isdecimal() and last not in ("local", "internal", "localhost", "svc")


def _invalid(message: str) -> Problem:
    return Problem(reason=_INVALID, message=message)
