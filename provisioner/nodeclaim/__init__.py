"""The provisioner controller: NodeClaims become agent pools. One file a phase; the phases are pure."""
