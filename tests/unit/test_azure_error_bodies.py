"""How error responses are read, the odd and the hostile ones too."""

import json

import pytest

from provisioner.apis.failure import Failure, FailureClass
from provisioner.azure.errors import classify_response
from tests.unit.azure_texts import flat, nested


def refuse(status: int, body: str, headers: dict[str, str] | None = None) -> Failure:
    return classify_response(status=status, headers=headers or {}, body=body)


def test_the_code_is_the_innermost_one() -> None:
    body = nested(
        "ResourceOperationFailure",
        "The resource operation completed with terminal provisioning state 'Failed'.",
        details=[
            {
                "code": "ReconcileVMSSAgentPoolFailed",
                "message": "It failed.",
                "details": [{"code": "ZonalAllocationFailed", "message": "Allocation failed."}],
            }
        ],
    )
    failure = refuse(400, body)
    assert (failure.kind, failure.code) == (FailureClass.CAPACITY, "ZonalAllocationFailed")


def test_a_detail_without_words_leaves_the_outer_ones() -> None:
    failure = refuse(400, nested("Outer", "The reason.", details=[{"code": "Inner", "message": None}]))
    assert failure.code == "Inner"
    assert failure.message.endswith("The reason.")


def test_messages_fit_into_a_condition() -> None:
    assert len(refuse(400, flat("InvalidParameter", "long " * 5000)).message) < 2048


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"Retry-After": "17"}, "", 17.0),
        ({"retry-after": "2.5"}, "", 2.5),
        ({"Retry-After": "-3"}, "", 0.0),
        ({"Retry-After": "1e300"}, "", 3600.0),
        ({"Retry-After": "inf"}, "", None),
        ({"Retry-After": "soon"}, "", None),
        ({"Retry-After": "Sat, 21 Nov 2026 10:00:30 GMT", "Date": "Sat, 21 Nov 2026 10:00:00 GMT"}, "", 30.0),
        ({"Retry-After": "Sat, 21 Nov 2026 09:00:00 GMT", "Date": "Sat, 21 Nov 2026 10:00:00 GMT"}, "", 0.0),
        ({"Retry-After": "Mon, 21 Nov 2016 09:00:00 GMT"}, "", 0.0),
        ({}, flat("Throttled", "please retry again in 42 seconds."), 42.0),
        ({"Retry-After": "5"}, flat("Throttled", "please retry again in 42 seconds."), 5.0),
        ({}, flat("Throttled", "slow down"), None),
    ],
)
def test_how_long_azure_wants_us_to_wait(headers: dict[str, str], body: str, expected: float | None) -> None:
    assert refuse(429, body, headers).retry_after == expected


def test_secrets_and_queries_of_urls_are_not_repeated() -> None:
    token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL21hbmFnZW1lbnQifQ.c2lnbmF0dXJl"
    failure = refuse(
        400,
        flat(
            "InvalidParameter",
            f"Authorization: Bearer {token} client_secret=hunter2 see https://blob.example/x?sig=abc%3D&se=1 and "
            f'https://user:pw@host/y {{"access_token": "{token}"}} {{"refresh_token": "opaque"}}',
        ),
    )
    for secret in (token, "hunter2", "abc%3D", "user:pw", "c2lnbmF0dXJl", "opaque"):
        assert secret not in failure.message
    assert "https://blob.example/x" in failure.message


def test_control_characters_do_not_get_through() -> None:
    failure = refuse(400, flat("InvalidParameter", "a\x00b\x1b[31mc\r\nd\u2028e"))
    assert failure.message.endswith(" a b [31mc d e")


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        nested("A" * 5000, "x"),
        json.dumps({"error": {"code": {"a": 1}, "message": ["b"], "details": {"c": 2}}}),
        json.dumps({"error": None}),
        json.dumps({"code": "X", "message": "y", "details": ["z", None]}),
        flat("X", 'Code="' * 10_000),
        flat("X", "https://" * 8_000),
        flat("X", "Bearer " * 9_000),
        flat("X", "action '" * 8_000),
        flat("X", "zone(s) 1" + ",1" * 20_000),
        flat("X", "Code=" + "\\" * 30_000),
        '{"code": "X", "message": "' + "\\\\" * 20_000,
        '{"message": "' * 5_000,
        "\ud800",
    ],
)
def test_hostile_bodies_end_in_a_failure(body: str) -> None:
    assert refuse(400, body).kind is FailureClass.INVALID


@pytest.mark.parametrize(
    ("cut_after", "code", "says"),
    [
        ('"QuotaExc', "", ""),
        ("The \\", "QuotaExceeded", "The"),
        ("failed.", "QuotaExceeded", 'The "operation" failed.'),
        ('"OperationNotAllowed"', "OperationNotAllowed", 'The "operation" failed.'),
        ("more, and", "OperationNotAllowed", 'Not "one" more, and'),
        ('"target"', "OperationNotAllowed", 'Not "one" more, and so on'),
    ],
)
def test_what_a_body_says_before_it_is_cut_off_counts(cut_after: str, code: str, says: str) -> None:
    detail = {"code": "OperationNotAllowed", "message": 'Not "one" more, and so on', "target": "x"}
    whole = nested("QuotaExceeded", 'The "operation" failed.', details=[detail])
    failure = refuse(400, whole[: whole.index(cut_after) + len(cut_after)])
    assert failure.kind is (FailureClass.QUOTA if code else FailureClass.INVALID)
    assert failure.code == code
    assert failure.message.endswith(says)


def test_the_error_of_an_operation_is_read_as_any_other() -> None:
    operation = {
        "name": "3f5c1e0e-0000-4000-8000-000000000000",
        "status": "Failed",
        "error": {"code": "SkuNotAvailable", "message": "Standard_NC6 has failed for Capacity Restrictions."},
    }
    failure = refuse(200, json.dumps(operation))
    assert (failure.kind, failure.code) == (FailureClass.SKU_RESTRICTED, "SkuNotAvailable")
    assert failure.message.startswith("Standard_NC6 cannot be had now: a capacity restriction, which may pass.")


def test_details_that_nest_without_end_are_read_to_a_depth() -> None:
    error: dict[str, object] = {"code": "Innermost", "message": "x"}
    for level in range(40):
        error = {"code": f"Level{level}", "message": "x", "details": [error]}
    assert refuse(400, json.dumps({"error": error})).code.startswith("Level")
