"""Streaming 2D classification."""
