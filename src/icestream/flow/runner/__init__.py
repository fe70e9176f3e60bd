"""The run loop: from what workers say through the scheduler to one transaction and new tasks."""
