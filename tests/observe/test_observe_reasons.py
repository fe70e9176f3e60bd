"""Reasons that differ in numbers only are told once."""

from icestream.observe.answers import ReasonCount
from icestream.observe.failures import group_reasons


def test_numbers_that_differ_become_a_range() -> None:
    reasons = [
        ReasonCount("steady", "moved 55.8 Å from one frame to the next, allowed are 10 Å", 1),
        ReasonCount("steady", "moved 11.2 Å from one frame to the next, allowed are 10 Å", 2),
        ReasonCount("steady", "moved 9e1 Å from one frame to the next, allowed are 10 Å", 1),
        ReasonCount("good", "moved 12 Å from one frame to the next, allowed are 10 Å", 3),
    ]
    assert group_reasons(reasons) == [
        ReasonCount("steady", "moved 11.2 … 9e1 Å from one frame to the next, allowed are 10 Å", 4),
        ReasonCount("good", "moved 12 Å from one frame to the next, allowed are 10 Å", 3),
    ]


def test_signs_are_part_of_numbers_and_names_are_not() -> None:
    reasons = [ReasonCount("dose", f"{change}% off", 1) for change in ("-100.0", "+7.5", "−29.8")]
    assert group_reasons(reasons) == [ReasonCount("dose", "-100.0 … +7.5% off", 3)]
    names = [ReasonCount("movies", f"mic_{number}.mrc: broken", 1) for number in ("0001", "0002")]
    assert group_reasons(names) == names


def test_equal_numbers_written_differently_are_one() -> None:
    assert group_reasons([ReasonCount("a", "1.0 s", 1), ReasonCount("a", "1 s", 1)]) == [ReasonCount("a", "1.0 s", 2)]


def test_no_reason_is_a_reason() -> None:
    assert group_reasons([ReasonCount("a", "", 2)]) == [ReasonCount("a", "", 2)]
    assert group_reasons([]) == []
