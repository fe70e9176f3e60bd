"""Programs of other people: what a step declares of one, and what a facility says about it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from icestream.errors import DeclarationError
from icestream.units import Second

_NUMBER = re.compile(r"\d+")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


@dataclass(frozen=True)
class Program:
    """An executable that steps run: how to find it, how to ask for its version, and which versions the steps understand.

    Parameters
    ----------
    name
        The name of the executable, and of its entry in the facility's file of programs.
    probe
        The arguments that make it print its version.
    version
        A regular expression whose first group is the version in what it prints.
    oldest, below
        The versions that were tried: from ``oldest`` up to, but not including, ``below``. Unset: no limit.
    """

    name: str
    probe: tuple[str, ...] = ("--version",)
    version: str = r"(\d+(?:\.\d+)+\S*)"
    oldest: str | None = None
    below: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise DeclarationError(f"program {self.name!r}: give the bare name of the executable, without a folder")
        if re.compile(self.version).groups < 1:
            raise DeclarationError(f"program {self.name!r}: the pattern of its version, {self.version!r}, has no group")

    @property
    def identity_name(self) -> str:
        """The name under which its version stands among the parameters that make a result."""
        return f"{self.name}.program"

    def read_version(self, printed: str) -> str | None:
        """Return the version in what the program printed; None if there is none."""
        found = re.search(self.version, printed)
        return found.group(1) if found else None

    def supports(self, version: str) -> bool:
        """Tell whether a version is one of those that were tried."""
        number = _numbers(version)
        return (self.oldest is None or number >= _numbers(self.oldest)) and (self.below is None or number < _numbers(self.below))

    @property
    def supported(self) -> str:
        """The versions that were tried, in words."""
        limits = [f"{self.oldest} or later" if self.oldest else "", f"below {self.below}" if self.below else ""]
        return ", ".join(filter(None, limits)) or "any"


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: ``4.0.1-commit-9ab`` is ``(4, 0, 1)``."""
    plain = re.match(r"[0-9.]*", version)
    return tuple(int(number) for number in _NUMBER.findall(plain.group() if plain else ""))


class ProgramSettings(BaseModel):
    """What a facility says about one program. Only version and extra arguments count in what makes a result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = Field(None, min_length=1, description="The executable; unset: searched for by name in PATH")
    environment: dict[str, str] = Field(
        default_factory=dict, description="Variables to set on top of the few that are passed on, such as LD_LIBRARY_PATH"
    )
    arguments: tuple[str, ...] = Field((), description="Arguments added to every call; they count in what makes a result")
    timeout_s: Second | None = Field(None, gt=0, allow_inf_nan=False, description="Longest time of one call; unset: no limit")
    version: str | None = Field(None, min_length=1, description="Its version, where it cannot be asked on the runner's machine")
    allow_untested: bool = Field(False, description="Also run versions that the step was not tested with")
    licence: str | None = Field(None, description="The terms under which the facility uses it; for people who read the file")
    citation: str | None = Field(None, description="What users should cite; for people who read the file")


@dataclass(frozen=True)
class FoundProgram:
    """A program that was found: where, which version, and how the facility wants it run."""

    name: str
    path: Path
    version: str
    settings: ProgramSettings = field(default_factory=ProgramSettings)

    @property
    def identity(self) -> str:
        """What counts in what makes a result: the version, and the arguments that the facility adds."""
        return " ".join([self.version, *self.settings.arguments])

    def __str__(self) -> str:
        return f"{self.name} {self.identity} ({self.path})"
