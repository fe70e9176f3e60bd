"""Volumes: initial ones and their consensus, importing, refining."""
