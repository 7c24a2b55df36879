"""A Kubernetes control plane on loopback, for tests and the demo: no containers and no root."""
