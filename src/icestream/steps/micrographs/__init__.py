"""Micrographs: importing them, and judging what they show."""
