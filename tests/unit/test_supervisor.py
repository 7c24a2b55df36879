"""Processes started through the supervisor end with the process that started them, in whichever way that ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.cluster.process import Supervisor, SupervisorError

ROOT = Path(__file__).parents[2]
DEADLINE = 20.0
# Deaf to SIGTERM, as an API server with open watches is. Says so in its log once it is.
DEAF = ["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 600; done"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running_in(folder: Path) -> set[int]:
    """Processes whose working directory is the folder, or was while it was there; a zombie has none."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "cwd").readlink()).removesuffix(" (deleted)") == str(folder):
                found.add(int(process.name))
        except OSError:
            continue
    return found


def folder_in(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def start(supervisor: Supervisor, folder: Path, *, name: str, argv: list[str]) -> None:
    supervisor.start(name, argv=argv, log=folder / f"{name}.log", cwd=folder)


def test_close_ends_everything_and_removes_the_folder(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    supervisor = Supervisor(folder)
    start(supervisor, folder, name="deaf", argv=DEAF)
    start(supervisor, folder, name="sleeper", argv=["sleep", "600"])
    until(lambda: (folder / "deaf.log").read_text() == "deaf\n")
    supervisor.close()
    assert running_in(folder) == set()
    assert not folder.exists()
    supervisor.close()


def test_folder_can_be_kept(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    supervisor = Supervisor(folder, keep=True)
    start(supervisor, folder, name="speaker", argv=["echo", "hello"])
    until(lambda: supervisor.poll() == {"speaker": 0})
    supervisor.close()
    assert (folder / "speaker.log").read_text() == "hello\n"


def test_stop_ends_only_the_named_and_poll_forgets_it(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    supervisor = Supervisor(folder)
    for name in ("one", "two"):
        start(supervisor, folder, name=name, argv=["sleep", "600"])
    supervisor.stop("one", grace=5)
    assert supervisor.poll() == {"two": None}
    start(supervisor, folder, name="one", argv=["sleep", "600"])
    assert supervisor.poll() == {"one": None, "two": None}
    supervisor.close()


def test_exit_codes_are_told(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    supervisor = Supervisor(folder)
    start(supervisor, folder, name="failing", argv=["/bin/sh", "-c", "exit 3"])
    until(lambda: supervisor.poll() == {"failing": 3})
    supervisor.close()


def test_what_cannot_be_run_and_names_in_use_are_errors(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    supervisor = Supervisor(folder)
    with pytest.raises(SupervisorError, match="cannot run /nowhere: No such file"):
        start(supervisor, folder, name="nothing", argv=["/nowhere"])
    start(supervisor, folder, name="sleeper", argv=["sleep", "600"])
    with pytest.raises(SupervisorError, match="sleeper is running already"):
        start(supervisor, folder, name="sleeper", argv=["sleep", "600"])
    supervisor.close()


def test_children_outlive_the_thread_that_started_them(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    made: list[Supervisor] = []

    def work() -> None:
        made.append(Supervisor(folder))
        start(made[0], folder, name="sleeper", argv=["sleep", "600"])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert made[0].poll() == {"sleeper": None}
    made[0].close()


def test_nothing_survives_a_killed_supervisor(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    supervisor = Supervisor(folder)
    start(supervisor, folder, name="sleeper", argv=["sleep", "600"])
    (child,) = running_in(folder)
    parent = int((Path("/proc") / str(child) / "stat").read_text().rsplit(")")[1].split()[1])
    os.kill(parent, signal.SIGKILL)
    until(lambda: running_in(folder) == set())
    with pytest.raises(SupervisorError, match="has ended"):
        supervisor.poll()
    supervisor.close()
    assert not folder.exists()


OWNER = """
import os, signal, sys, time
from pathlib import Path
from fakes.cluster.process import Supervisor
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # where the tests run under nohup, it is ignored by inheritance
folder = Path(sys.argv[1])
supervisor = Supervisor(folder)
supervisor.start("sleeper", argv=["sleep", "600"], log=folder / "log", cwd=folder)
if "fork" in sys.argv and os.fork() == 0:
    time.sleep(600)  # holds every descriptor that the owner holds
if "exit" in sys.argv:
    sys.exit()
if "raise" in sys.argv:
    raise RuntimeError("an owner that fails")
print("started", flush=True)
time.sleep(600)
"""


def owner(folder: Path, *modes: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), *modes],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_survives_an_owner_that_is_signalled(tmp_path: Path, number: signal.Signals) -> None:
    folder = folder_in(tmp_path)
    with owner(folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        assert len(running_in(folder)) == 1
        process.send_signal(number)
    until(lambda: not folder.exists())
    assert running_in(folder) == set()


@pytest.mark.parametrize("mode", ["exit", "raise"])
def test_nothing_survives_an_owner_that_ends(tmp_path: Path, mode: str) -> None:
    folder = folder_in(tmp_path)
    with owner(folder, mode) as process:
        process.wait(DEADLINE)
    until(lambda: not folder.exists())
    assert running_in(folder) == set()


def test_a_fork_of_the_owner_does_not_keep_anything_alive(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    with owner(folder, "fork") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.kill()
        process.wait(DEADLINE)
        try:
            until(lambda: not folder.exists())
            assert running_in(folder) == set()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
