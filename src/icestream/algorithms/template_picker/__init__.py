"""Finding particles that look like given templates, as the exposure images them."""
