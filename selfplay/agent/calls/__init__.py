"""Tool calls as models write them, and how they are read."""
