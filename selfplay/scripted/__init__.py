"""Policies that follow a program: they drive tests, demonstrations and self-checks."""
