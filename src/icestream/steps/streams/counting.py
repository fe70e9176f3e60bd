"""What triggers and batches count, in numbers and words."""

from typing import Literal

from icestream.flow import Progress

Counted = Literal["exposures", "particles"]


def number_of(progress: Progress, counted: Counted) -> int:
    """Return how many exposures or particles wait."""
    return progress.waiting_weight if counted == "particles" else progress.waiting


def number_passed(progress: Progress, counted: Counted) -> int:
    """Return how many exposures or particles are in earlier batches."""
    return progress.passed_weight if counted == "particles" else progress.passed


def hours(seconds: float) -> str:
    """Return a time as people say it."""
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"
