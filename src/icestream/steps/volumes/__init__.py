"""Volumes: initial ones, importing, refining, judging, classes of particles, consensus of volumes and classes, and when to stop."""
