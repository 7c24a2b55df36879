"""How the reading of a claim ends where it cannot be served as it stands."""

from typing import Final

from provisioner.placement.market import Refusal

# Condition reasons.
NO_FITTING_SIZE: Final = "NoFittingInstanceType"
MIN_VALUES: Final = "MinValuesNotMet"
UNSUPPORTED_RESOURCE: Final = "UnsupportedResource"


class Refused(Exception):
    """The claim cannot be served; `refusal` says why."""

    def __init__(self, *, reason: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(reason=reason, message=message)
