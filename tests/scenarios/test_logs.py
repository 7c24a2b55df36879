"""The controller's log of a claim's whole life: Azure's support can trace each call, and nothing secret is in it."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from fakes.aks import FakeAks
from fakes.azure import Answer, Call
from fakes.controller import ControllerProcess
from tests.claims import kaito_claim
from tests.kube import CLAIMS, Kube, eventually, has_reason, is_true
from tests.scenarios.on_azure import DELETE, PUT

NAME = "ws09f153898"
ABOUT_CLAIMS = ("provisioner.nodeclaim.actuator", "provisioner.nodeclaim.azure_requests")
Entry = dict[str, Any]


def entries(controller: ControllerProcess) -> list[Entry]:
    """Return the log; fails where a line is no JSON object."""
    return [json.loads(line) for line in controller.log_text().splitlines()]


def arm_calls(log: list[Entry], method: str) -> list[Entry]:
    return [entry for entry in log if entry["message"] == "ARM call" and entry["method"] == method]


def called(aks: FakeAks, operation: str) -> Call:
    (call,) = [call for call in aks.azure.calls if call.operation == operation]
    return call


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_each_line_says_what_it_is_about(
    aks: FakeAks, kube: Kube, make_controller: Callable[..., ControllerProcess], level: str
) -> None:
    async with make_controller(LOG_LEVEL=level) as controller:
        await kube.create(CLAIMS, kaito_claim(NAME))
        await kube.wait_claim(NAME, is_true("Ready"))
        await kube.delete(CLAIMS, NAME)
        await kube.wait_gone(CLAIMS, NAME)
        assert await controller.stop() == 0
    log = entries(controller)

    for method, operation, status in (("PUT", PUT, 201), ("DELETE", DELETE, 202)):
        (line,) = arm_calls(log, method)
        assert (line["level"], line["claim"], line["agent_pool"], line["status"]) == ("info", NAME, NAME, status)
        assert line["client_request_id"] == called(aks, operation).client_request_id
        assert line["correlation_id"]
        assert line["request_id"]
        assert 0 < line["seconds"] < 60
    # Of the reads, which come at a pace, only where everything is wanted; but for one that the end has cut off.
    reads = [entry for entry in arm_calls(log, "GET") if entry["level"] != "warning"]
    assert bool(reads) == (level == "debug")
    own = [
        entry
        for entry in log
        if entry["logger"] in ("provisioner.nodeclaim.actuator", "provisioner.nodeclaim.azure_requests")
    ]
    assert own
    assert {entry.get("claim") for entry in own} == {NAME}
    assert {entry["level"] for entry in log} <= {"debug", "info", "warning"}
    # Nothing of the libraries': they tell of headers and of each event.
    assert {entry["logger"].partition(".")[0] for entry in log} == {"provisioner"}


async def test_hostile_answer_forges_no_line_and_nothing_secret_is_logged(
    aks: FakeAks, kube: Kube, make_controller: Callable[..., ControllerProcess]
) -> None:
    token = ".".join(
        base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"none"}', b'{"a":1}' * 9, b"s")
    )
    message = (
        f'no\n{{"level": "error", "message": "forged"}}\r\x1b[2J\u2028 Bearer {token} '
        "https://a.example.com/b?sig=verysecret client_secret=verysecret"
    )
    aks.azure.add_fault(
        Answer(operation=PUT, status=400, body={"error": {"code": "BadRequest", "message": message}}, times=None)
    )
    async with make_controller() as controller:
        await kube.create(CLAIMS, kaito_claim(NAME))
        claim = await kube.wait_claim(NAME, has_reason("Launched", "InvalidRequest"))
        await eventually(
            lambda: kube.events_of(NAME), until=lambda events: "no {" in json.dumps(events), what="an Event says so"
        )
        await controller.stop()
    text = controller.log_text()
    log = entries(controller)

    refused = [entry for entry in log if entry["message"] in ("Azure refused", "Azure cannot deliver")]
    assert refused
    assert {entry["claim"] for entry in refused} == {NAME}
    (put, *_) = arm_calls(log, "PUT")
    assert (put["level"], put["status"]) == ("warning", 400)
    assert not [entry for entry in log if entry["message"] == "forged"]
    assert text.isascii()
    events = json.dumps(await kube.events_of(NAME))
    mine = aks.azure.entra.federated_token_file.read_text()
    for secret in (token, "verysecret", mine, "eyJ"):
        for place in (text, json.dumps(claim), events):
            assert secret not in place
