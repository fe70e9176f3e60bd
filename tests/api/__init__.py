"""Tests of reading a session from Python."""
