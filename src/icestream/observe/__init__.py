"""What people look at: read-only views of a session's store, and the report. Nothing here writes the store or opens an image."""
