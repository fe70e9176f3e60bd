"""A session on disk: its document, its store on SQLite or PostgreSQL, and moving both."""
