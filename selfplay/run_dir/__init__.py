"""One run on disk: its directory, the log of episodes, metrics, and what ran where."""

from selfplay.run_dir.directory import SUMMARY_KEYS, RunDir

__all__ = ["SUMMARY_KEYS", "RunDir"]
