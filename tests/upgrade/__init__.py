"""An upgrade rehearsed: a session of an earlier release, what it shows and what it becomes."""
