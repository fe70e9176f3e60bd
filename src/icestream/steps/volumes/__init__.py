"""Volumes: initial ones and their consensus, importing, refining, sorting particles into classes, comparing them, and when to stop."""
