"""Running a test script on a state of the code and reading what came of it."""
