"""Which KaitoNodeClasses there are, and whether claims can be served with them."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from provisioner.nodeclaim.nodeclass import problem
from provisioner.nodeclaim.nodeclasses import NodeClasses
from tests.unit.builders import claim, condition


def raw(name: str = "gold", *conditions: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "status": {"conditions": list(conditions)}}


def listing(*raws: dict[str, Any], meanwhile: Callable[[], None] = lambda: None) -> Callable[[], Awaitable[Any]]:
    async def read() -> list[dict[str, Any]]:
        meanwhile()
        return list(raws)

    return read


NOT_READY = condition("Ready", "False", "SubnetNotFound", "There is no subnet x.")


@pytest.mark.parametrize(
    ("name", "found", "reason"),
    [
        ("gold", None, "NodeClassNotFound"),
        ("gold", raw(deletionTimestamp="2026-11-21T04:34:24Z"), "NodeClassNotFound"),
        ("gold", raw("gold", NOT_READY), "NodeClassNotReady"),
        ("gold", raw("gold", condition("Ready", "Unknown", "Waiting")), None),
        ("gold", raw("gold", condition("Ready", "True", "Ready")), None),
        ("gold", raw(), None),
        ("gold", {"metadata": {"name": "gold"}, "status": None}, None),
        ("default", None, None),
        ("default", raw("default", deletionTimestamp="2026-11-21T04:34:24Z"), None),
        ("default", raw("default", NOT_READY), "NodeClassNotReady"),
    ],
)
def test_class_can_be_used_or_not(name: str, found: dict[str, Any] | None, reason: str | None) -> None:
    told = problem(name, found)
    assert (told.reason if told else None) == reason
    assert told is None or name in told.message


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ({"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "gold"}, "gold"),
        ({"group": "kaito.sh", "kind": "KaitoNodeClass", "name": ""}, "default"),
        ({"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "gold"}, "default"),
        (None, "default"),
    ],
)
def test_claim_that_names_no_class_of_ours_has_the_default_one(ref: Any, name: str) -> None:
    assert claim(nodeClassRef=ref).class_name == name


async def test_full_list_brings_what_the_watch_has_not_told_of() -> None:
    classes = NodeClasses()
    assert not classes.listed
    assert await classes.relist(listing(raw("gold"))) == {"gold"}
    assert classes.listed
    assert classes.get("gold") == raw("gold")
    assert await classes.relist(listing(raw("gold"))) == frozenset()


async def test_class_goes_when_two_lists_in_a_row_are_without_it() -> None:
    classes = NodeClasses()
    classes.put(raw("gold"))
    assert await classes.relist(listing()) == frozenset()
    assert await classes.relist(listing(raw("gold"))) == frozenset()
    assert await classes.relist(listing()) == frozenset()
    assert classes.get("gold") is not None
    assert await classes.relist(listing()) == {"gold"}
    assert classes.get("gold") is None


async def test_what_the_watch_tells_while_a_list_is_read_is_newer() -> None:
    classes = NodeClasses()
    newer = raw("gold", resourceVersion="2")
    await classes.relist(listing(raw("gold"), meanwhile=lambda: classes.put(newer)))
    assert classes.get("gold") == newer
    await classes.relist(listing())
    await classes.relist(listing(meanwhile=lambda: classes.put({**newer})))
    assert classes.get("gold") == newer


async def test_class_that_was_deleted_is_gone() -> None:
    classes = NodeClasses()
    classes.put(raw("gold"))
    classes.remove("gold")
    classes.remove("gold")
    assert classes.get("gold") is None


async def test_list_that_fails_changes_nothing() -> None:
    async def read() -> list[dict[str, Any]]:
        raise ConnectionError

    classes = NodeClasses()
    classes.put(raw("gold"))
    with pytest.raises(ConnectionError):
        await classes.relist(read)
    assert not classes.listed
    assert classes.get("gold") is not None
