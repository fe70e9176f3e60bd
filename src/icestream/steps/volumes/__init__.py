"""Steps that make volumes, compare them, and sort particles by them."""
