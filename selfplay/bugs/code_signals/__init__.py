"""What a patch brings into the code that a bug has no honest use for, by language."""
