"""Test parsers that the harness writes into artifacts: self-contained programs, stdin to JSON."""
