"""Which pods have to leave a Node that is taken down."""

from datetime import timedelta
from typing import Any

import pytest

from provisioner.nodeclaim.drain_rules import is_drainable, leaves
from tests.unit.builders import NOW
from tests.unit.pod_builders import pod

DISRUPTED = {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("changes", "drainable", "has_to_leave"),
    [
        ({}, True, True),
        ({"owner": "DaemonSet"}, True, True),
        ({"annotations": {"karpenter.sh/do-not-disrupt": "true"}}, True, True),
        ({"phase": "Succeeded"}, True, False),
        ({"phase": "Failed"}, True, False),
        ({"mirror": True}, False, False),
        ({"owner": "Node"}, False, False),
        ({"tolerations": [{**DISRUPTED, "operator": "Exists"}]}, False, False),
        ({"tolerations": [{**DISRUPTED, "operator": "Equal", "value": ""}]}, False, False),
        ({"tolerations": [{"operator": "Exists"}]}, False, False),
        ({"tolerations": [{**DISRUPTED, "operator": "Exists", "effect": "NoExecute"}]}, True, True),
        ({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}, True, True),
        ({"deleted": NOW + timedelta(seconds=30)}, True, True),
        ({"deleted": NOW - timedelta(seconds=60)}, True, True),
        ({"deleted": NOW - timedelta(seconds=61)}, False, False),
    ],
)
def test_pod_leaves_unless_no_drain_would_make_it_go(
    changes: dict[str, Any], drainable: bool, has_to_leave: bool
) -> None:
    made = pod(**changes)
    assert is_drainable(made, now=NOW) is drainable
    assert leaves(made, now=NOW) is has_to_leave
