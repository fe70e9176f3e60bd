"""A virtual machine for the engine: runner, workers and sources in one process, on a virtual clock."""
