"""Volumes: initial ones, importing, refining, judging, classes of particles, consensus of both, and when to stop."""
