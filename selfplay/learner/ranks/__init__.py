"""The processes that train together: who is who, what each computes, how weights are divided."""
