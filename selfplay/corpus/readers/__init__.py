"""Suites that others wrote, as the lines of ours."""
