"""Bugs and attempts that are kept: database, duplicates, suites."""
