"""Sandboxes of containers."""
