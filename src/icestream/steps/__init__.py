"""The built-in steps: read, call an algorithm, return a record."""
