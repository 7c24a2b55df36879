"""What no log and no message of ours may carry, whoever wrote the text that it stands in."""

import re
from typing import Final

# Characters of one text. Longer ones are cut before anything is searched for in them.
_LONGEST: Final = 16_384

_SECRETS: Final = (
    (re.compile(r"(https?://)[^\s/@]{1,200}@"), r"\1"),
    # Queries of signed URLs are secrets, all others are noise in a message.
    (re.compile(r"(https?://[^\s?#\"'<>()\]]{1,1000})[?#][^\s\"'<>()\]]*"), r"\1"),
    # JSON web tokens, wherever they stand.
    (re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){1,4}"), "(token)"),
    (re.compile(r"\bbearer\s+[\w.~+/=-]{12,}", re.IGNORECASE), "Bearer (token)"),
    (re.compile(r"\bbasic\s+[A-Za-z0-9+/]{16,}={0,2}", re.IGNORECASE), "Basic (hidden)"),
    # Hugging Face's.
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), "(token)"),
    (
        re.compile(
            r"\b(client_secret|client_assertion|assertion|access_token|refresh_token|id_token|hf_token|password|sig"
            r"|accountkey|sharedaccesskey|api_key|x-api-key)"
            # Quotes are escaped where JSON stands in JSON.
            r"(\\?[\"']?\s*[=:]\s*\\?[\"']?)[^\s&;\"',}\\]+",
            re.IGNORECASE,
        ),
        r"\1\2(hidden)",
    ),
)


def redact(text: str) -> str:
    """Return the text without tokens, keys, passwords and the queries of URLs; a very long one is cut."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text
