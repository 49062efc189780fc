"""Target repositories: where they come from, how they are prepared, and what is in them."""
