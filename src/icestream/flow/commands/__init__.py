"""What people ask of a session: one command a row, carried out by the runner, answered in the same row."""
