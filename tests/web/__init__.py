"""The web application, asked by clients of every kind."""
