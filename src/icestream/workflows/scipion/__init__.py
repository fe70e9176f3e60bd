"""Bringing workflows from Scipion: reading its JSON, translating protocols and parameters, writing a template."""
