"""Sandboxes on the nodes of a Ray cluster: `cluster=ray` (docs/scaling.md)."""
