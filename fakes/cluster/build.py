"""Fills the cache with the five programs of the control plane."""

import os
import sys
from collections.abc import Mapping
from typing import TextIO

from fakes.cluster import binaries, workshop
from fakes.cluster.binaries import MODULE, PACKAGES, Binaries
from fakes.cluster.workshop import Order, Program


def ensure(environ: Mapping[str, str] = os.environ, *, stream: TextIO | None = None) -> Binaries:
    """Return the five programs, building into the cache those that are nowhere.

    Raises BinariesMissing when that fails. What is finished stays, so an interrupted build goes on where it was.
    """
    stream = sys.stderr if stream is None else stream
    found = binaries.search(environ)
    if found.notice:
        stream.write(f"{found.notice}\n")
    if not found.missing:
        return found.binaries()
    target = binaries.cache_root(environ) / binaries.key()
    with workshop.locked(target.with_name(f"{target.name}.lock"), stream=stream):
        missing = binaries.search(environ).missing  # another process may have built them by now
        if missing:
            workshop.build(_order(missing), target=target, environ=environ, stream=stream)
    return binaries.find(environ)


def _order(names: tuple[str, ...]) -> Order:
    command = ("build", *binaries.build_flags())
    programs = {name: Program(command=command, package=PACKAGES[name]) for name in names}
    return Order(module=MODULE, programs=programs, about="the control plane (about five minutes for all five programs)")
