"""The two roles that the one policy plays, and their rewards."""
