"""The corpus in other people's formats."""
