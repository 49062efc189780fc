"""Both roles in one turn."""
