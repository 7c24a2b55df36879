"""Equal texts are one object, and equal specs are read once: what a thousand claims and Nodes take in memory."""

import json
from typing import Any

from provisioner.apis.conditions import LAUNCHED
from provisioner.apis.node import parse_node
from provisioner.apis.nodeclaim import parse_nodeclaim
from tests.unit.builders import kaito_claim, raw_node, reached


def sent(raw: Any) -> Any:
    """Return the object as it comes from an API server: every text in it is a new one."""
    return json.loads(json.dumps(raw))


def test_equal_texts_of_nodes_are_one_object() -> None:
    one, other = (parse_node(sent(raw_node(number=number, labels={"a-label": "a value"}))) for number in (1, 2))
    for texts, others in (
        (one.labels, other.labels),
        (one.annotations, other.annotations),
        (one.capacity, other.capacity),
        (one.allocatable, other.allocatable),
    ):
        assert texts == others
        assert all(text is others[key] for key, text in texts.items())


def test_equal_texts_and_specs_of_claims_are_one_object() -> None:
    status = {"conditions": reached(LAUNCHED)}
    one, other = (parse_nodeclaim(sent(kaito_claim(name=name, status=status))) for name in ("wsone", "wsother"))
    assert all(text is other.labels[key] for key, text in one.labels.items())
    assert [condition.reason for condition in one.conditions] == ["Launched"]
    assert one.conditions[0].reason is other.conditions[0].reason
    assert one.spec is other.spec


def test_specs_that_differ_are_told_apart() -> None:
    one, other = (parse_nodeclaim(sent(kaito_claim(expireAfter=after))) for after in ("1h", "2h"))
    assert one.spec != other.spec


def test_long_spec_is_read_and_not_remembered() -> None:
    requirements = [{"key": "a-label", "operator": "In", "values": [f"value-{number}" for number in range(1000)]}]
    one, other = (parse_nodeclaim(sent(kaito_claim(requirements=requirements))) for _ in range(2))
    assert one.spec == other.spec
    assert one.spec is not other.spec
