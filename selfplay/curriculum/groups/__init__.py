"""Solver groups: which are played, how large they become, and what they were worth."""
