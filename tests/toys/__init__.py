"""Small steps on numbers, sessions made of them, and a model of what must come out."""
