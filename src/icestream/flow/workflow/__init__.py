"""The workflow: a checked graph of steps, conditions, what steps ask for, and keys of results."""
