"""The solver with several tries: the oracle tests that it may see are run after each."""
