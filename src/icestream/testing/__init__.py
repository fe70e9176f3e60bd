"""Helpers for our tests and for the tests of plugin authors."""
