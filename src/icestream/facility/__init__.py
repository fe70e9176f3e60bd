"""Many sessions: the watch that makes a session of every new acquisition folder, and the runners it keeps."""
