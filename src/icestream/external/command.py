"""Building the arguments of a program: a list of texts, never a line for a shell."""

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import Self

Value = str | int | float | PurePath


@dataclass(frozen=True)
class Command:
    """The arguments of one call; each method returns a longer one."""

    arguments: tuple[str, ...] = ()

    def option(self, name: str, *values: Value | None) -> Self:
        """Add an option and its values; nothing if a value is None."""
        if any(value is None for value in values):
            return self
        return type(self)((*self.arguments, name, *(_text(name, value) for value in values if value is not None)))

    def flag(self, name: str, *, on: bool = True) -> Self:
        """Add an option without a value, if it is on."""
        return type(self)((*self.arguments, name)) if on else self

    def word(self, value: Value) -> Self:
        """Add an argument that belongs to no option."""
        return type(self)((*self.arguments, _text("an argument", value)))

    def __str__(self) -> str:
        return " ".join(self.arguments)


def _text(name: str, value: Value) -> str:
    """Return a value as it is typed: numbers with all their digits, never in a form that depends on the language.

    Raises
    ------
    ValueError
        It is not finite, or holds what no argument can hold.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{name}: {value} is not a finite number")
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    text = str(value)
    if "\0" in text:
        raise ValueError(f"{name}: {text!r} contains a NUL character")
    return text
