"""A run as one page that a browser opens without network: curves, coverage, bugs, episodes."""
