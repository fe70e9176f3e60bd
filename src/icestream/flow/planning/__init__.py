"""Dry runs: what an edit, a restart or a recomputation would do and cost, without doing it."""
