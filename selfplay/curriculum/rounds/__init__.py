"""Rounds in flight: which are alive, what they wait for, which samples are too old."""
