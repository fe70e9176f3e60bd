"""Finding particles with a matched filter that is learned from the micrograph, and their diameter."""
