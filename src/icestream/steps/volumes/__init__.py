"""Steps that make and judge volumes: initial volumes, their consensus, refinement."""
