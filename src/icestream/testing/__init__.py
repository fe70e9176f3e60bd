"""Helpers for the tests of plugin authors: a stand-in for the engine when one step function is called."""
