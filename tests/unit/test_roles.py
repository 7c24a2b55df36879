"""The roles of docs/examples grant what the code asks of Azure Resource Manager, by its paths, and nothing else."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.azure import routes

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
# What the fake, which goes by method and path, calls otherwise than the code does.
OTHER_NAMES = {"agentpools.create": "agentpools.put", "upgradeprofiles.get": "agentpools.getupgradeprofile"}
VERBS = {"GET": "read", "PUT": "write", "DELETE": "delete"}
# What Azure checks by itself of a resource that a request names, or is asked only where a node class names one.
OF_NODE_CLASSES = {
    "Microsoft.Compute/capacityReservationGroups/capacityReservations/read",
    "Microsoft.Compute/capacityReservationGroups/deploy/action",
    "Microsoft.Compute/capacityReservationGroups/read",
    "Microsoft.Network/virtualNetworks/subnets/join/action",
    "Microsoft.Network/virtualNetworks/subnets/read",
}


def operations() -> set[str]:
    """Return the operations that the code names in its requests."""
    return {name for path in (ROOT / "provisioner" / "azure").glob("*.py") for name in _named(path)}


def _named(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "operation" and isinstance(node.value, ast.Constant):
            yield str(node.value.value)


def action_of(operation: str) -> str:
    """Return the action that Azure asks a role for: provider and types of the resource in the path, and the verb."""
    name = OTHER_NAMES.get(operation, operation)
    ((method, template),) = [(method, path) for method, path, known in routes._TABLE if known.lower() == name]
    # Names in the path are places to fill in, but for the one profile that there is.
    resource = re.sub(r"/(\{\w+\}|default)(?=/|$)", "", template.rpartition("/providers/")[2])
    return f"{resource}/{VERBS[method]}"


def granted(role: str) -> set[str]:
    definition = json.loads((EXAMPLES / role).read_text())
    assert definition.keys() == {"Name", "Description", "Actions", "AssignableScopes"}
    assert definition["Actions"] == sorted(set(definition["Actions"]))
    assert definition["AssignableScopes"] == ["/subscriptions/SUBSCRIPTION"]
    assert all("*" not in action for action in definition["Actions"])
    return set(definition["Actions"])


NEEDED = {action_of(operation) for operation in operations()}


def test_operations_are_found() -> None:
    assert len(operations()) >= 8


@pytest.mark.parametrize(
    ("role", "prefixes"),
    [
        ("role.json", ("Microsoft.ContainerService/",)),
        ("role-subscription.json", ("Microsoft.Compute/locations/", "Microsoft.Compute/skus/")),
    ],
)
def test_role_grants_what_the_code_asks_for_and_no_more(role: str, prefixes: tuple[str, ...]) -> None:
    assert granted(role) == {action for action in NEEDED if action.startswith(prefixes)}


def test_what_the_code_asks_for_beside_is_about_node_classes() -> None:
    left = NEEDED - granted("role.json") - granted("role-subscription.json")

    assert left <= granted("role-node-classes.json") == OF_NODE_CLASSES
