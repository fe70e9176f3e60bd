"""Holding, dividing and joining streams, and closing batches."""
