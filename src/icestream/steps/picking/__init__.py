"""Finding particles on micrographs."""
