"""Karpenter's own tests, unmodified, against this controller."""
