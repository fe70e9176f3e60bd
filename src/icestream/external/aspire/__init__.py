"""ASPIRE (https://github.com/ComputationalCryoEM/ASPIRE-Python, GPL-3.0), run by the Python of its own environment."""
