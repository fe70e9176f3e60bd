"""A template of toy steps, and waiting for what a runner does."""

import time
from collections.abc import Callable

TOY_TEMPLATE = """# Numbers, multiplied
placeholders:
  numbers: {label: Folder of numbers, type: folder, group: Data}
  count: {label: How many, type: int, ge: 1, default: 3, group: Data, help: The stream closes after so many}
  factor: {label: Factor, type: int, unit: x, default: 3, ge: 1, le: 9, group: Numbers, help: What each number is multiplied by}
roots: {numbers: {ask: numbers}}
steps:
  numbers: {use: "toys.steps:count_numbers", params: {stop_after: {ask: count}}}
  times: {use: "toys.steps:multiply", in: {number: numbers}, params: {factor: {ask: factor}}}
"""

LIMIT_S = 60.0


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.1)
