"""How the workers of a controller fare, under controller-runtime's names, which dashboards for controllers know."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from provisioner.kube.metrics import Registry

_LABELS: Final = ("controller",)


@dataclass
class Reconcile:
    """One reconcile under way; whoever handles its failure says so here."""

    has_failed: bool = False


class Reconciles:
    """Counts and times the reconciles of one controller."""

    def __init__(self, registry: Registry, *, controller: str) -> None:
        self._controller = controller
        self._workers = 0
        self._active = 0
        self._seconds = registry.histogram(
            "controller_runtime_reconcile_time_seconds", text="Seconds of one reconcile.", labels=_LABELS
        )
        self._results = registry.counter(
            "controller_runtime_reconcile_total", text="Reconciles by result.", labels=(*_LABELS, "result")
        )
        self._errors = registry.counter(
            "controller_runtime_reconcile_errors_total", text="Reconciles that have failed.", labels=_LABELS
        )
        self._active_workers = registry.gauge(
            "controller_runtime_active_workers", text="Workers that are at a reconcile.", labels=_LABELS
        )
        self._max_concurrent = registry.gauge(
            "controller_runtime_max_concurrent_reconciles", text="Workers that there are.", labels=_LABELS
        )

    def add_worker(self) -> None:
        """Count one more worker."""
        self._workers += 1
        self._max_concurrent.set(self._workers, controller=self._controller)

    @contextmanager
    def one(self) -> Iterator[Reconcile]:
        """Count and time what is done inside; what leaves it by an exception has failed too."""
        started, reconcile = time.perf_counter(), Reconcile()
        self._note_active(1)
        try:
            yield reconcile
        except BaseException:
            reconcile.has_failed = True
            raise
        finally:
            self._note_active(-1)
            result = "error" if reconcile.has_failed else "success"
            self._results.inc(controller=self._controller, result=result)
            self._errors.inc(float(reconcile.has_failed), controller=self._controller)
            self._seconds.observe(time.perf_counter() - started, controller=self._controller)

    def _note_active(self, change: int) -> None:
        self._active += change
        self._active_workers.set(self._active, controller=self._controller)
