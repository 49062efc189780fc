"""Sandboxes of Linux namespaces, without root and without an engine."""
