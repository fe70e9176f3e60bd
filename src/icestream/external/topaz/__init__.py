"""Topaz (https://github.com/tbepler/topaz, GPL-3.0), run in the environment that it is installed in."""
