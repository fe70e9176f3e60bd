"""Motion correction: streamed frames, global and local motion, sums with and without dose weights."""
