"""Model files and the parts of a forward pass that are ours."""
