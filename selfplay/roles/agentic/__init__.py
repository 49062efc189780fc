"""Both roles with tools in a sandbox that stays."""
