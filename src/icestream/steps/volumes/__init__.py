"""Volumes: importing, refining, judging."""
