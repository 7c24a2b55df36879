"""Standard output: tables, JSON and YAML, and who reads them."""

import json
import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any, Literal

import yaml

from provisioner.commands.text import clean

Format = Literal["table", "json", "yaml"]


def document(value: Any, *, form: Format) -> str:
    """Return the value as a JSON or YAML document. Both escape whatever a terminal would obey."""
    if form == "json":
        return json.dumps(value, indent=2) + "\n"
    return yaml.safe_dump(value, sort_keys=False, width=120)


def write(text: str) -> None:
    """Write to standard output, now. Raises BrokenPipeError where nobody reads any more."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_lines(lines: Iterable[str]) -> None:
    """Write lines to standard output."""
    write("".join(f"{line}\n" for line in lines))


def note(message: str) -> None:
    """Tell the person something beside the answer, in one line on standard error."""
    sys.stderr.write(f"provisioner: {clean(message)}\n")
    sys.stderr.flush()


def width() -> int | None:
    """Return the columns of the terminal, None where the answer goes elsewhere and must not be cut."""
    return shutil.get_terminal_size().columns if is_terminal() else None


def height() -> int:
    """Return the lines of the terminal."""
    return shutil.get_terminal_size().lines


def is_terminal() -> bool:
    """Tell whether a person watches, on something that can be redrawn."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def prepare() -> None:
    """Have characters that the locale lacks replaced; an answer with question marks is better than none."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def abandon() -> None:
    """Let the interpreter end in silence although standard output is gone: it flushes once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
