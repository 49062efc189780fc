"""What code does when it runs: recorded traces of tests, and the datasets that are made of them."""
