"""Tests as spans of text: found, taken out, weakened."""
