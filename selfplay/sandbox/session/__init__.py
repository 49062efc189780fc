"""A sandbox that stays: one long job whose first process runs an agent's commands."""
