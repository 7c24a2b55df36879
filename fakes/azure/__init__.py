"""ARM and Entra for one AKS managed cluster, over TLS on loopback, for unmodified Azure SDK clients.

It keeps time, names, limits, quotas, capacity, conflicts, throttling and error bodies as Azure does, tells prices, and
lets things go wrong on request.
`python -m fakes.azure --help` runs it alone.
"""

from fakes.azure.calls import Call, CallLog
from fakes.azure.faults import Answer, Delay, Disconnect, Fault, OperationFault
from fakes.azure.ids import ResourceIds
from fakes.azure.machines import Machine
from fakes.azure.server import FakeAzure
from fakes.azure.settings import Settings

__all__ = [
    "Answer",
    "Call",
    "CallLog",
    "Delay",
    "Disconnect",
    "FakeAzure",
    "Fault",
    "Machine",
    "OperationFault",
    "ResourceIds",
    "Settings",
]
