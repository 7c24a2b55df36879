"""What a Workspace must not say, found without asking anybody. Pure.

Our CRD refuses most of it at once; Workspaces that were stored under KAITO's have got past that.

Each finding names the field and says what to do.
"""

import ipaddress
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Final
from urllib.parse import urlsplit

from provisioner.apis.workspace import Adapter, DataDestination, DataSource, Workspace
from provisioner.gpus import presets
from provisioner.workspace.view import Problem

MAX_ADAPTERS: Final = 10
_INVALID: Final = "InvalidWorkspace"
_ADAPTER_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", re.ASCII)
# As the Hub has them: no part begins or ends with a dot or dash, which keeps paths of files out as well.
_MODEL_PART: Final = r"\w(?:[\w.-]{0,94}\w)?"
_MODEL_ID: Final = re.compile(f"{_MODEL_PART}/{_MODEL_PART}", re.ASCII)
_SELECTABLE: Final = ("In", "NotIn", "Exists", "DoesNotExist")


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
    yield from _of_inference(workspace)
    yield from _of_tuning(workspace)


def _of_resource(workspace: Workspace) -> Iterator[Problem]:
    for expression in workspace.resource.label_selector.match_expressions:
        if expression.operator not in _SELECTABLE:
            yield _invalid(
                f"resource.labelSelector.matchExpressions: operator {expression.operator!r} of {expression.key} is "
                f"none of {', '.join(_SELECTABLE)}."
            )
    partition = workspace.resource.partition
    if partition is not None and partition.mode == "mig":
        yield _invalid(
            "resource.partition.mode: mig is not supported; leave partition out, or use whole GPUs (accelerator)."
        )


def _of_inference(workspace: Workspace) -> Iterator[Problem]:
    inference = workspace.inference
    if inference is None:
        return
    if (inference.preset is None) is (inference.template is None):
        both = "both are" if inference.preset is not None else "neither is"
        yield _invalid(f"inference.preset, inference.template: {both} there; one of them is needed.")
        return
    if inference.preset is not None:
        yield from _of_model(inference.preset.name, field="inference.preset.name")
    elif inference.adapters:
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
    if not 0 <= strength <= 1:
        yield _invalid(f"{field}.strength: {adapter.strength[:40]!r} is no number from 0 to 1.")


def _of_tuning(workspace: Workspace) -> Iterator[Problem]:
    tuning = workspace.tuning
    if tuning is None:
        return
    if tuning.preset is None:
        yield _invalid("tuning.preset is missing: name the model that is to be tuned.")
        return
    yield from _of_model(tuning.preset.name, field="tuning.preset.name")
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
    if parts.scheme not in ("http", "https") or not host or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return not host.endswith((".local", ".internal", ".svc"))


def _invalid(message: str) -> Problem:
    return Problem(reason=_INVALID, message=message)
