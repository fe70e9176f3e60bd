"""The scheduler: ``(state, event) → instructions``, pure; no input, output or clock."""
