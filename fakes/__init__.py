"""A whole AKS on loopback: ARM and Entra, a Kubernetes control plane, and nodes. No cloud, no containers, no root."""
