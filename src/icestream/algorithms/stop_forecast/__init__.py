"""When to stop: the signal of one particle from the correlation curves of all subsets, and what more hours would bring."""
