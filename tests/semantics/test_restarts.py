"""The API server goes away and comes back: same address, same objects, and no watch goes on from before."""

import pytest

from fakes.cluster.interface import ControlPlane
from tests.semantics.client import Kube, eventually
from tests.semantics.things import THINGS, path, thing


def test_restart_keeps_objects_and_breaks_watches(cluster: ControlPlane, kube: Kube) -> None:
    url = cluster.url
    made = kube.create(THINGS, thing())
    with kube.watch(THINGS, resourceVersion=made["metadata"]["resourceVersion"]) as watch:
        cluster.stop_apiserver()
        with pytest.raises((OSError, EOFError, ValueError, StopIteration)):
            watch.next()
    kube.close()
    with pytest.raises(ConnectionRefusedError):
        kube.get(THINGS)
    cluster.check()
    cluster.start_apiserver()
    assert cluster.url == url
    # Custom resources may be served a moment later than the rest.
    eventually(lambda: kube.find(path(THINGS, made)))
    assert kube.get(path(THINGS, made))["metadata"]["uid"] == made["metadata"]["uid"]
    after = kube.create(THINGS, thing())
    assert int(after["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
