"""GPU nodes for Azure Kubernetes Service: Karpenter NodeClaims become AKS agent pools."""

from typing import Final

__version__: Final = "0.1.0"
