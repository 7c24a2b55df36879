"""The rows of Compute's usages in a region: their names, as Compute spells them, and the limits they start with.

https://learn.microsoft.com/rest/api/compute/usage/list. Names of vCPU families are those of the SKUs, spaces,
underscores and mixed case included; beside them a region has rows for what is no family, and for families without any
size in the region.
"""

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

CORES: Final = "cores"
SPOT_CORES: Final = "lowPriorityCores"

# Compute knows these, whatever the subscription has there.
REGIONS: Final = frozenset(
    {
        *("australiaeast", "australiasoutheast", "brazilsouth", "canadacentral", "canadaeast", "centralindia"),
        *("centralus", "eastasia", "eastus", "eastus2", "francecentral", "germanywestcentral", "italynorth"),
        *("japaneast", "japanwest", "koreacentral", "northcentralus", "northeurope", "norwayeast", "polandcentral"),
        *("qatarcentral", "southafricanorth", "southcentralus", "southeastasia", "southindia", "swedencentral"),
        *("switzerlandnorth", "uaenorth", "uksouth", "ukwest", "westcentralus", "westeurope", "westus", "westus2"),
        "westus3",
    }
)


class Row(BaseModel):
    """One row, and the limit that a subscription starts with here: more than any test needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    localized: str
    limit: int

    def resource(self, *, limit: int, current: int) -> dict[str, Any]:
        """Return the row as Compute lists it."""
        return {
            "limit": limit,
            "unit": "Count",
            "currentValue": current,
            "name": {"value": self.name, "localizedValue": self.localized},
        }


@functools.cache
def table() -> Mapping[str, Row]:
    """Return the rows by lower-cased name, in Compute's order."""
    rows = json.loads(resources.files(__package__).joinpath("usages.json").read_text(encoding="utf-8"))
    return {row.name.lower(): row for row in map(Row.model_validate, rows)}


def canonical(name: str) -> str:
    """Return a row's name in Compute's spelling. Raises ValueError where there is no such row."""
    row = table().get(name.lower())
    if row is None:
        raise ValueError(f"{name!r} is no row of Compute's usages")
    return row.name
