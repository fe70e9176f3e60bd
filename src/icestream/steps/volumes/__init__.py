"""Volumes: initial ones and their consensus, importing, refining, classes of particles and their consensus, and when to stop."""
