"""The contrast transfer function: estimating it, comparing estimates, filtering by it."""
