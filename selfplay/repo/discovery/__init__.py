"""Finding the tests of a repository, how they run, and what each reaches."""
