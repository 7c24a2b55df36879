"""How workers fare, under controller-runtime's names."""

import pytest

from provisioner.kube.metrics import Registry
from provisioner.kube.reconciles import Reconciles

WHO = '{controller="c"'


def samples(registry: Registry) -> list[str]:
    lines = registry.expose().splitlines()
    return [line.removeprefix("controller_runtime_") for line in lines if not line.startswith("#")]


def test_reconciles_are_counted_by_how_they_end_and_timed() -> None:
    registry = Registry()
    reconciles = Reconciles(registry, controller="c")
    with reconciles.one():
        pass
    with reconciles.one() as look:
        look.has_failed = True
    with pytest.raises(ZeroDivisionError), reconciles.one():
        raise ZeroDivisionError
    found = samples(registry)
    assert f'reconcile_total{WHO},result="success"}} 1' in found
    assert f'reconcile_total{WHO},result="error"}} 2' in found
    assert f"reconcile_errors_total{WHO}}} 2" in found
    assert f"reconcile_time_seconds_count{WHO}}} 3" in found


def test_controller_that_never_fails_says_so() -> None:
    registry = Registry()
    with Reconciles(registry, controller="c").one():
        pass
    assert f"reconcile_errors_total{WHO}}} 0" in samples(registry)


def test_workers_that_are_at_work_are_told_of_all_there_are() -> None:
    registry = Registry()
    reconciles = Reconciles(registry, controller="c")
    for _ in range(3):
        reconciles.add_worker()
    with reconciles.one(), reconciles.one():
        assert f"active_workers{WHO}}} 2" in samples(registry)
    found = samples(registry)
    assert f"active_workers{WHO}}} 0" in found
    assert f"max_concurrent_reconciles{WHO}}} 3" in found
