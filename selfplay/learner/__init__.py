"""Reinforcement learning on training samples; knows nothing of roles, bugs or sandboxes."""
