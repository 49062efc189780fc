"""What runs in vLLM's own environment. The standard library alone."""
