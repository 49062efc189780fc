"""Exports as Parquet files that the package `datasets` reads, with a dataset card."""
