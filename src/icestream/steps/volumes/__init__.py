"""Volumes: importing, refining."""
