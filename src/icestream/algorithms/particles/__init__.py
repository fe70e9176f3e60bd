"""Finding particles and cutting them out."""
