"""Patches as layers: text in, `path -> content` out, and back."""
