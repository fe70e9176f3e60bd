"""From movies to micrographs: motion correction, and what is told of the motion."""
