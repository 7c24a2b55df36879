"""The charts, by the real Helm on the real control plane."""
