"""What is asked of the injector next, and what stops a question."""
