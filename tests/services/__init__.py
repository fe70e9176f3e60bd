"""Real servers for tests: PostgreSQL, Slurm."""
