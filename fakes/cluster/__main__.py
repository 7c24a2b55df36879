"""`python -m fakes.cluster`: a control plane that runs until Ctrl-C."""

import argparse
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

from fakes.cluster import build
from fakes.cluster.binaries import BinariesMissing
from fakes.cluster.embedded import EmbeddedCluster
from fakes.cluster.interface import ControlPlane
from fakes.cluster.process import SupervisorError
from fakes.cluster.real import ComponentFailed, RealCluster

_CHECK_INTERVAL: Final = 1.0
_INTERRUPTED: Final = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0 when it was stopped or has built, 1 when something failed."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_ctrl_c)
    try:
        if options.embedded:
            return _serve(EmbeddedCluster(options.directory, keep=options.keep), what="an embedded control plane")
        binaries = build.ensure()
        if options.build_only:
            return 0
        cluster = RealCluster(options.directory, keep=options.keep, binaries=binaries)
        return _serve(cluster, what="etcd, kube-apiserver, kube-controller-manager and kube-scheduler")
    except (BinariesMissing, ComponentFailed, SupervisorError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _serve(cluster: ControlPlane, *, what: str) -> int:
    started = time.monotonic()
    with cluster:
        print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}", flush=True)
        print(
            f"Running {what} at {cluster.url}, ready after {time.monotonic() - started:.1f} s.\n"
            f"Logs are in {cluster.folder}, kubectl is {cluster.kubectl or 'not to be found'}.\n"
            "Ctrl-C stops it all.",
            file=sys.stderr,
            flush=True,
        )
        try:
            while True:
                cluster.check()
                time.sleep(_CHECK_INTERVAL)
        except KeyboardInterrupt:  # the way it is meant to end
            return 0


def _as_ctrl_c(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fakes.cluster",
        description="Run a real Kubernetes control plane on loopback, without containers and without root: etcd, "
        "kube-apiserver, kube-controller-manager and kube-scheduler. The first run builds them from source, which "
        "takes about five minutes; after that they are ready in a few seconds. Prints a line for a shell to evaluate.",
    )
    parser.add_argument(
        "--embedded",
        action="store_true",
        help="run our own control plane in Python instead: nothing is built, everything is in memory",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        metavar="D",
        help="an empty or new folder for data, logs and kubeconfigs (default: a temporary one); removed in the end",
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder in the end")
    parser.add_argument("--build-only", action="store_true", help="build what is missing, start nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
