"""The API of KAITO's older images, `POST /chat`, in terms of OpenAI's. Pure.

    {"prompt": ..., "return_full_text": ..., "generate_kwargs": {...}}   is a completion
    {"messages": [...], "generate_kwargs": {...}}                        is a chat

and both are answered with {"Result": ...}.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# What transformers generate when nobody says how much, as those images had it.
_TOKENS: Final = 200
_SAME: Final = ("temperature", "top_p", "top_k", "repetition_penalty", "length_penalty", "seed")


class BadChat(ValueError):
    """The request is none that can be meant; the message tells why."""


@dataclass(frozen=True, kw_only=True)
class Translated:
    """A request of OpenAI's API. `prompt` is what the answer begins with, empty where it does not."""

    path: str
    body: Mapping[str, Any]
    prompt: str = ""


def translate(request: Any, *, model: str) -> Translated:
    """Return the request in OpenAI's terms. Raises BadChat."""
    if not isinstance(request, dict):
        raise BadChat("the body must be a JSON object")
    wishes = request.get("generate_kwargs") or {}
    if not isinstance(wishes, dict):
        raise BadChat("generate_kwargs must be an object")
    body: dict[str, Any] = {"model": model, "max_tokens": _tokens(wishes)}
    body |= {name: wishes[name] for name in _SAME if wishes.get(name) is not None}
    if wishes.get("do_sample") is False:
        body["temperature"] = 0
    if (stop := wishes.get("stop_strings", wishes.get("stop"))) is not None:
        body["stop"] = stop
    messages, prompt = request.get("messages"), request.get("prompt")
    if isinstance(messages, list) and messages:
        return Translated(path="/v1/chat/completions", body={**body, "messages": messages})
    if not isinstance(prompt, str) or not prompt:
        raise BadChat("prompt must be a text, or messages a list")
    return Translated(
        path="/v1/completions",
        body={**body, "prompt": prompt},
        prompt=prompt if request.get("return_full_text", True) is not False else "",
    )


def result(translated: Translated, answer: Any) -> dict[str, str]:
    """Return the old API's answer. Raises BadChat where the server's has no text in it."""
    try:
        choice = answer["choices"][0]
        text = choice["text"] if "text" in choice else choice["message"]["content"]
    except (TypeError, KeyError, IndexError) as error:
        raise BadChat("the server's answer has no text in it") from error
    return {"Result": translated.prompt + (text or "")}


def _tokens(wishes: Mapping[str, Any]) -> int:
    for name in ("max_new_tokens", "max_length"):
        value = wishes.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return _TOKENS
