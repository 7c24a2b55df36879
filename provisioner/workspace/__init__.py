"""The reconciler of KAITO Workspaces: a model name becomes NodeClaims and what runs on their Nodes."""
