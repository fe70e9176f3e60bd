"""What other programs read, kept up to date while data come."""
