"""Reading the errors of ARM, AKS, Compute and Entra: codes, the message that matters, how long to wait.

Two shapes come over the wire: ARM and Compute wrap (`{"error": {"code", "message", "details"}}`), the AKS resource
provider answers flat (`{"code", "message", "details"}`). The outer error often says no more than that the operation
failed; the cause is nested in `details`, or quoted in the message as `Code="..." Message="..."`, or the message is
itself a JSON document. Gateways on the way answer HTML or nothing.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from provisioner.redaction import redact

# Characters. Longer bodies are no errors of ARM; the rest is not read.
_MAX_BODY: Final = 65_536
# A condition message holds 2048 characters and has our own words in front.
_MAX_TEXT: Final = 1_200
# ARM nests three deep at most; a hostile body may nest at will.
_MAX_DEPTH: Final = 8
# Seconds. AKS's slowest bucket refills once a minute; a server that asks for more than an hour is not worth believing.
MAX_RETRY_AFTER: Final = 3600.0

_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
# Quotes come with as many backslashes as envelopes they have been through.
_QUOTED: Final = re.compile(r'\bCode=\\*"(?P<code>\w{1,100})\\*"\s+Message=\\*"(?P<message>[^"\\]{0,4000})')
_QUOTED_CODE: Final = re.compile(r'\b(?:Code=\\*"?|Error ?Code: )([A-Za-z]\w{0,99})', re.IGNORECASE)
# What is left of an error whose body was cut off on its way.
_CUT_CODE: Final = re.compile(r'"code"\s*:\s*"([\w.:-]{1,100})"')
_CUT_MESSAGE: Final = re.compile(r'"message"\s*:\s*"((?:[^"\\]|\\.){1,4000})')
_TITLE: Final = re.compile(r"<title>\s*([^<]{1,200}?)\s*</title>", re.IGNORECASE)
_AGAIN_AFTER: Final = re.compile(r"\b(?:try|retry) again (?:after|in) '?(\d{1,6})'? ?(?:s\b|sec)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ArmError:
    """What an error says: all its codes, outermost first, and the innermost message, cleaned."""

    codes: tuple[str, ...] = ()
    message: str = ""

    @property
    def code(self) -> str:
        """Return the innermost code, or an empty string."""
        return self.codes[-1] if self.codes else ""


def read_body(body: str) -> ArmError:
    """Read the body of an error response, whatever it is."""
    body = body[:_MAX_BODY]
    document = _load(body)
    if document is None:
        title = _TITLE.search(body)
        return ArmError(message=clean(title[1])) if title else _read_cut(body)
    error = document.get("error", document)
    if isinstance(error, str):
        # Entra: {"error": "invalid_client", "error_description": "AADSTS..."}
        return _read(code=error, message=document.get("error_description"), details=None)
    return _read_mapping(error) if isinstance(error, Mapping) else ArmError()


def is_arm_body(body: str) -> bool:
    """Tell whether the body is an error of ARM or a resource provider, and not one of OAuth or of a gateway."""
    document = _load(body[:_MAX_BODY])
    return document is not None and (isinstance(document.get("error"), Mapping) or "code" in document)


def read_text(code: str, message: str) -> ArmError:
    """Read a code and message that were already taken out of their envelope."""
    return _read(code=code, message=message, details=None)


def clean(text: str, *, limit: int = _MAX_TEXT) -> str:
    """Return the text on one line, without secrets and without the queries of URLs, cut to `limit` characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text[:_MAX_BODY]).split())
    text = redact(text)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def read_retry_after(headers: Mapping[str, str], *, message: str = "", now: datetime | None = None) -> float | None:
    """Return the seconds that Azure wants us to wait, at most MAX_RETRY_AFTER, None where it does not say.

    An HTTP date is measured against the response's own Date header where it has one, so that our clock may be wrong.
    Throttling messages repeat the seconds in words, which counts where a gateway has dropped the header.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    seconds = _seconds(lowered.get("retry-after", ""), date=lowered.get("date", ""), now=now)
    if seconds is None and (words := _AGAIN_AFTER.search(message)):
        seconds = float(words[1])
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _seconds(value: str, *, date: str, now: datetime | None) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        moment = _http_date(value)
        if moment is None:
            return None
        return (moment - (_http_date(date) or now or datetime.now(UTC))).total_seconds()
    return seconds if math.isfinite(seconds) else None


def _http_date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _load(text: str) -> Mapping[str, Any] | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, Mapping) else None


def _read_mapping(error: Mapping[str, Any], *, depth: int = 0) -> ArmError:
    return _read(code=error.get("code"), message=error.get("message"), details=error.get("details"), depth=depth)


def _read(*, code: object, message: object, details: object, depth: int = 0) -> ArmError:
    codes = (str(code),) if isinstance(code, str | int) and _CODE.fullmatch(str(code)) else ()
    text = message if isinstance(message, str) else ""
    if depth < _MAX_DEPTH:
        for inner in _inner(text, details, depth=depth):
            if inner.codes or inner.message:
                return ArmError(codes=(*codes, *inner.codes), message=inner.message or clean(text))
    return _read_quoted(codes, text)


def _inner(text: str, details: object, *, depth: int) -> list[ArmError]:
    """Return what may hold the cause, likeliest first."""
    found = []
    if isinstance(details, list):
        found += [_read_mapping(item, depth=depth + 1) for item in details[:1] if isinstance(item, Mapping)]
    if text.lstrip().startswith("{") and (document := _load(text)) is not None:
        error = document.get("error", document)
        found += [_read_mapping(error, depth=depth + 1)] if isinstance(error, Mapping) else []
    return found


def _read_cut(body: str) -> ArmError:
    if not body.lstrip().startswith("{"):
        return ArmError()
    messages = _CUT_MESSAGE.findall(body)
    return _read_quoted(tuple(_CUT_CODE.findall(body)[:_MAX_DEPTH]), _unescaped(messages[-1]) if messages else "")


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


def _read_quoted(codes: tuple[str, ...], text: str) -> ArmError:
    # The last one quoted is the innermost.
    quoted = list(_QUOTED.finditer(text))
    inner = tuple(_QUOTED_CODE.findall(text))
    message = quoted[-1]["message"] if quoted else ""
    return ArmError(codes=(*codes, *inner), message=clean(message or text))
