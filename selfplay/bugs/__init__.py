"""Bugs as artifacts: patches, test runs, validation, grading, sealing, corpus."""
