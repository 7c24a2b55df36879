"""How a command ends: codes for scripts, and the one line for people."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes. Stable: scripts branch on them."""

    DONE = 0
    # Azure or Kubernetes did not answer, or not with what was asked for.
    FAILED = 1
    # A setting, an argument or a file is wrong.
    BAD_INPUT = 2
    # Not now: quota, a restriction, or a claim that is not ready yet.
    NOT_NOW = 3
    # Never, as it is written.
    REFUSED = 4
    # What a shell reports of a process that Ctrl-C, or a reader that has gone, has ended.
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class Trouble(Exception):
    """The command cannot go on; the text is one line that says what to do."""

    def __init__(self, message: str, *, code: Exit = Exit.BAD_INPUT) -> None:
        super().__init__(message)
        self.code = code
