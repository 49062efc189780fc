"""The commands of `selfplay`, one module each: `HELP` and `run(overrides) -> exit code`.

These are the only composition roots: here configuration becomes objects.
"""
