"""Supervised examples for a policy's start."""
