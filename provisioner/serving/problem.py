"""What keeps the program from its work, said in one line that tells what to change."""

import re
from pathlib import Path
from typing import Final

# Kubernetes shows the first 4096 bytes of a termination message and the owner of a Workspace far less.
_LONGEST: Final = 1000
_SECRETS: Final = re.compile(r"hf_[A-Za-z0-9]{8,}|(?<=Bearer )\S+|(?<=://)[^/@\s]+@|(?<=[?&]sig=)[^&\s]+")


class Problem(Exception):
    """The work cannot be done as it was asked for; the message tells the user what to change."""


def one_line(text: str) -> str:
    """Return the text as one line of bounded length, without what looks like a secret."""
    line = " ".join("".join(part if part.isprintable() else " " for part in text).split())
    return _SECRETS.sub("***", line)[:_LONGEST]


def write_termination_message(path: Path, text: str) -> None:
    """Write what Kubernetes shows as the reason of the container's end; not being able to is no reason to fail.

    Without a text nothing is in the file, so that Kubernetes shows the end of the log instead.
    """
    line = one_line(text)
    try:
        path.write_text(f"{line}\n" if line else "", encoding="utf-8")
    except OSError:
        return
