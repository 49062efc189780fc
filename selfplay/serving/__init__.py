"""Bugs of a suite as an environment for other people's trainers: questions out, verdicts back."""
