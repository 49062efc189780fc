"""The corpus as an environment package of verifiers."""
