"""Equal texts kept once: a thousand Nodes carry the same forty labels, and JSON makes each of them anew."""

import sys
from collections.abc import Mapping


def shared_texts(raw: Mapping[str, str]) -> dict[str, str]:
    """Return a copy whose keys and values are the same objects as equal ones elsewhere. They go with their last user.

    What is no text, which an API server does not send, stays as it is.
    """
    return {shared_text(key): shared_text(value) for key, value in raw.items()}


def shared_text(text: str) -> str:
    """Return the one object that stands for all equal texts."""
    # Only of str itself, as the interpreter wants it.
    return sys.intern(text) if type(text) is str else text
