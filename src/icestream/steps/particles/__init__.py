"""Particle images."""
