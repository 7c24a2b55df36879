"""What the Hugging Face Hub tells of a model before anything of it is downloaded: files and their sizes, its config.

vLLM asks the same a minute later and ends in a traceback where it may not; asked here first, a missing token is one
line after a second. A Hub that does not answer stops nothing: the model may be in the cache.
"""

import contextlib
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from provisioner.serving.problem import Problem

_TIMEOUT: Final = 5.0
_LARGEST: Final = 16 << 20
# What vLLM does not fetch where there are safetensors.
_NOT_FETCHED: Final = (".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".png", ".jpg", ".md", ".pdf")


class Silent(Exception):
    """The Hub could not be asked."""


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """Sizes in bytes. `config` is empty where the model has none that can be read."""

    download_bytes: int
    weights_bytes: int
    config: Mapping[str, Any] = field(default_factory=dict)


def look_up(model: str, *, revision: str, endpoint: str, token: str) -> HubModel:
    """Return what the Hub says of the model. Raises Problem where it will not hand it out, Silent."""
    name, at = urllib.parse.quote(model), urllib.parse.quote(revision or "main", safe="")
    info = _get(f"{endpoint}/api/models/{name}/revision/{at}?blobs=true", token=token, model=model)
    siblings = info.get("siblings") if isinstance(info, dict) else None
    sizes = {
        str(entry.get("rfilename")): int(entry.get("size") or 0)
        for entry in (siblings if isinstance(siblings, list) else [])
        if isinstance(entry, dict)
    }
    safetensors = {file: size for file, size in sizes.items() if file.endswith(".safetensors") and "/" not in file}
    weights = sum(size for file, size in safetensors.items() if not file.startswith("consolidated")) or sum(
        safetensors.values()
    )
    fetched = sum(
        size for file, size in sizes.items() if not (safetensors and file.endswith(_NOT_FETCHED)) and "/" not in file
    )
    config: Any = {}
    if "config.json" in sizes:
        with contextlib.suppress(Problem, Silent):
            config = _get(f"{endpoint}/{name}/resolve/{at}/config.json", token=token, model=model)
    return HubModel(download_bytes=fetched, weights_bytes=weights, config=config if isinstance(config, dict) else {})


def _get(url: str, *, token: str, model: str) -> Any:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise Silent("HF_ENDPOINT is no address of http or https")
    request = urllib.request.Request(url)  # noqa: S310 -- the scheme is checked above
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.build_opener(_OwnRedirects).open(request, timeout=_TIMEOUT) as answer:
            return json.loads(answer.read(_LARGEST))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            what = "the token in HF_TOKEN may not read it" if token else "it is gated, private or does not exist"
            raise Problem(
                f"the Hub does not hand out {model}: {what}; accept its licence there and name a Secret with a token in"
                " presetOptions.modelAccessSecret"
            ) from error
        if error.code == 404:
            raise Problem(f"the Hub has no model {model} of that revision: check the name") from error
        raise Silent(f"the Hub answers {error.code}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise Silent(f"the Hub does not answer: {error}") from error


class _OwnRedirects(urllib.request.HTTPRedirectHandler):
    """Hands the token on within the Hub, which redirects for most files, and to nobody else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the request that the answer leads to."""
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        held = req.unredirected_hdrs.get("Authorization")
        if following is not None and held and _origin(newurl) == _origin(req.full_url):
            following.add_unredirected_header("Authorization", held)
        return following


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc
