"""The shapes that Azure's errors come in, and texts that more than one test needs."""

import json
from typing import Any


def flat(code: str, message: str) -> str:
    """Return an error as the AKS resource provider writes it."""
    return json.dumps({"code": code, "details": None, "message": message, "subcode": ""})


def nested(code: str, message: str, **rest: Any) -> str:
    """Return an error as ARM and Compute write it."""
    return json.dumps({"error": {"code": code, "message": message, **rest}})


def cores(name: str, *, limit: int, usage: int, required: int) -> str:
    """Return what Compute says of a quota."""
    return (
        f"Operation could not be completed as it results in exceeding approved {name} quota. Additional details - "
        f"Deployment Model: Resource Manager, Location: eastus, Current Limit: {limit}, Current Usage: {usage}, "
        f"Additional Required: {required}, (Minimum) New Limit Required: {usage + required}. Submit a request for "
        "Quota increase at https://aka.ms/ProdportalCRP/?#create/Microsoft.Support/Parameters/%7B%22subId%22 by "
        "specifying parameters listed in the 'Details' section for deployment to succeed."
    )
