"""Volumes: importing, refining, sorting particles into classes, comparing classes, and when to stop."""
