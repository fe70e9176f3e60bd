"""Programs of other people: what a step declares of one, and what a facility says about it."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

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
    never_run
        The steps follow its documentation alone: those who wrote them could not run it. People are told.
    """

    name: str
    probe: tuple[str, ...] = ("--version",)
    version: str = r"(\d+(?:\.\d+)+\S*)"
    oldest: str | None = None
    below: str | None = None
    never_run: bool = False

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
        """The versions that were tried, or are documented, in words."""
        limits = [f"{self.oldest} or later" if self.oldest else "", f"below {self.below}" if self.below else ""]
        return ", ".join(filter(None, limits)) or "any"

    @property
    def note(self) -> str:
        """What people are to know of it before they rely on it; empty if nothing."""
        return "never run for real: written from its documentation, tested with a stand-in" if self.never_run else ""


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: ``4.0.1-commit-9ab`` is ``(4, 0, 1)``."""
    plain = re.match(r"[0-9.]*", version)
    return tuple(int(number) for number in _NUMBER.findall(plain.group() if plain else ""))


class ProgramSettings(BaseModel):
    """What a facility says about one program. Only version and extra arguments count in what makes a result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = Field(None, min_length=1, description="The executable; unset: searched for by name in PATH")
    modules: tuple[Annotated[str, Field(pattern=r"^[^\s-]\S*$")], ...] = Field(
        (), description="Environment modules that are loaded for it, in this order, such as relion/4.0.1"
    )
    prefix: Path | None = Field(
        None, description="Folder of a Conda or virtual environment that it is installed in; its bin comes first in PATH"
    )
    launcher: tuple[str, ...] = Field(
        (),
        description="Words that stand before the program, such as apptainer, exec, --bind, /data, topaz.sif; {work} is its "
        "private folder. Its path is then one in the container",
    )
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

    def command_in(self, work: Path) -> list[str]:
        """Return the words that start it in a private folder, up to its own arguments."""
        return [*(word.replace("{work}", str(work)) for word in self.settings.launcher), str(self.path)]

    @property
    def identity(self) -> str:
        """What counts in what makes a result: the version, and the arguments that the facility adds."""
        return " ".join([self.version, *self.settings.arguments])

    def __str__(self) -> str:
        return f"{self.name} {self.identity} ({self.path})"
