"""What is told of each call to Azure Resource Manager: metrics, and a line in the log."""

import logging
from typing import Final

from provisioner.azure.budget import Wait
from provisioner.azure.session import CallRecord
from provisioner.kube.metrics import Registry

_log: Final = logging.getLogger(__name__)

_BAD: Final = 400
# A pool that is there already, or not there any more: the answers that say so are what was asked for.
_EXPECTED: Final = (404, 412)


class ArmCalls:
    """Counts and times calls, and logs them with what Azure's support asks for."""

    def __init__(self, metrics: Registry) -> None:
        self._calls = metrics.counter(
            "gpu_provisioner_arm_calls_total",
            text="Calls to Azure Resource Manager by operation and status.",
            labels=("operation", "status"),
        )
        self._seconds = metrics.histogram(
            "gpu_provisioner_arm_call_duration_seconds",
            text="Seconds until Azure Resource Manager answered.",
            labels=("operation",),
        )
        self._waits = metrics.counter(
            "gpu_provisioner_arm_waits_total",
            text="Calls to Azure Resource Manager that were held back: for a Retry-After, or by our own budget.",
            labels=("operation", "by"),
        )

    def on_call(self, call: CallRecord) -> None:
        """Take a finished call."""
        self._calls.inc(operation=call.operation, status=str(call.status or call.error))
        self._seconds.observe(call.seconds, operation=call.operation)
        fields = {
            "operation": call.operation,
            "method": call.method,
            "agent_pool": call.pool,
            "status": call.status,
            "error": call.error,
            "seconds": round(call.seconds, 3),
            "correlation_id": call.correlation_id,
            "request_id": call.request_id,
            "client_request_id": call.client_request_id,
        }
        _log.log(
            _level(call), "ARM call", extra={key: value for key, value in fields.items() if value not in ("", None)}
        )

    def on_wait(self, operation: str, wait: Wait) -> None:
        """Take a call that was held back."""
        self._waits.inc(operation=operation, by="azure" if wait.by_azure else "own-budget")


def _level(call: CallRecord) -> int:
    if call.status is None or (call.status >= _BAD and call.status not in _EXPECTED):
        return logging.WARNING
    # What is read at a pace would drown all else.
    return logging.DEBUG if call.method == "GET" else logging.INFO
