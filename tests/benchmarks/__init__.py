"""Measurements by hand. They assert no timing: a shared machine has none that could be held against anybody."""
