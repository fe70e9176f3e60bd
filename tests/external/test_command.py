from pathlib import PurePosixPath

import pytest

from icestream.external.command import Command


def test_arguments_are_texts_of_their_own_and_nothing_is_interpreted() -> None:
    command = (
        Command()
        .option("--i", PurePosixPath("micrograph.mrc"))
        .option("--size", 3, 2.5)
        .option("--unset", None)
        .flag("--on")
        .flag("--off", on=False)
        .word("$(touch x); `y` > z")
    )
    assert command.arguments == ("--i", "micrograph.mrc", "--size", "3", "2.5", "--on", "$(touch x); `y` > z")


@pytest.mark.parametrize(("value", "text"), [(20.0, "20"), (0.1, "0.1"), (-1.5, "-1.5"), (1e-9, "1e-09"), (7, "7")])
def test_numbers_keep_their_digits(value: float, text: str) -> None:
    assert Command().option("--x", value).arguments == ("--x", text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "a\0b"])
def test_what_no_argument_can_be_is_refused(value: float | str) -> None:
    with pytest.raises(ValueError, match="--x"):
        Command().option("--x", value)
