"""The values that a template asks for: their types, what is allowed, and how text becomes a value."""

import math
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from icestream.documents import split_members

Type = Literal["str", "int", "float", "bool", "path", "file", "folder", "choice", "list", "range", "size_ang", "duration_s"]
Scalar = str | int | float | bool

PATH_TYPES = frozenset({"path", "file", "folder"})
NAME = re.compile(r"[a-z][a-z0-9_]*")
LONGEST_TEXT = 4096
MOST_MEMBERS = 1000

_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "yes or no",
    "path": "a file or folder",
    "file": "a file",
    "folder": "a folder",
    "size_ang": "a length in Å (or with a unit, such as 12 nm)",
    "duration_s": "a time in s (or with units, such as 90m, 12h, 1d 2h)",
}
_YES_NO = {
    "true": True,
    "yes": True,
    "y": True,
    "1": True,
    "on": True,
    "false": False,
    "no": False,
    "n": False,
    "0": False,
    "off": False,
}
_LENGTH = re.compile(r"([0-9.eE+-]+)\s*(Å|A|nm)?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([dhms])")
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class Placeholder(BaseModel):
    """One value that a template asks for; the form, the prompts, the command line and the documentation all come from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = Field(min_length=1, max_length=200, description="What people are asked for, in a few words")
    type: Type = Field("str", description="What kind of value it is")
    help: str | None = Field(None, description="One or two sentences for somebody who does not know what to answer")
    unit: str | None = Field(None, description="Unit that is shown beside the value")
    default: Any = Field(None, description="Value that is used where none is given")
    optional: bool = Field(False, description="May be left without a value: what it stands for is then left out")
    choices: list[str | int | float] | None = Field(None, min_length=1, description="The values that are allowed")
    of: Literal["str", "int", "float"] = Field("float", description="Type of the members of a list")
    ge: float | None = Field(None, description="Smallest value")
    gt: float | None = Field(None, description="The value must be above this")
    le: float | None = Field(None, description="Largest value")
    lt: float | None = Field(None, description="The value must be below this")
    env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable that gives the default")
    group: str = Field("Values", min_length=1, description="Heading under which it is asked for")
    advanced: bool = Field(False, description="Asked for only on request")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        texts = (self.label, self.group, self.unit or "", (self.help or "").replace("\n", ""))
        if not all(text.isprintable() for text in texts):
            raise ValueError("label, group, unit and help are text that can be printed")
        if self.type == "choice" and self.choices is None:
            raise ValueError("a choice needs choices")
        if self.choices is not None and self.type not in ("choice", "list", "str", "int", "float"):
            raise ValueError(f"choices belong to the types choice, list, str, int and float, not to {self.type}")
        bounds = (self.ge, self.gt, self.le, self.lt)
        if any(bound is not None for bound in bounds) and self.type not in _BOUNDED:
            raise ValueError(f"ge, gt, le and lt belong to the types {', '.join(sorted(_BOUNDED))}, not to {self.type}")
        if self.default is not None:
            read_value(self, self.default, base=Path("/"))
        return self

    @property
    def required(self) -> bool:
        """Tell whether there must be a value that a person, a file or the environment gives."""
        return not self.optional and self.default is None

    @property
    def shown_unit(self) -> str:
        """The unit as people see it; empty where there is none."""
        return self.unit or {"size_ang": "Å", "duration_s": "s"}.get(self.type, "")


_BOUNDED = frozenset({"int", "float", "list", "range", "size_ang", "duration_s"})


def describe_allowed(placeholder: Placeholder) -> str:
    """Return in words what a value may be."""
    if placeholder.choices is not None:
        told = f"one of {', '.join(map(str, placeholder.choices))}"
        return f"a list; each {told}" if placeholder.type == "list" else told
    if placeholder.type == "list":
        told = f"a list such as 1, 2; each {_WORDS[placeholder.of]}"
    elif placeholder.type == "range":
        told = "two numbers such as 100, 120, the smaller first"
    else:
        told = _WORDS[placeholder.type]
    limits = [
        f"{word} {bound:g}"
        for word, bound in (
            ("at least", placeholder.ge),
            ("above", placeholder.gt),
            ("at most", placeholder.le),
            ("below", placeholder.lt),
        )
        if bound is not None
    ]
    unit = f" ({placeholder.unit})" if placeholder.unit else ""
    return f"{told}{unit}{', ' if limits else ''}{' and '.join(limits)}"


def read_value(placeholder: Placeholder, value: Any, *, base: Path) -> Any:
    """Return the typed value of what somebody typed or wrote; relative paths are below ``base``.

    Raises
    ------
    ValueError
        Saying what was given and what is allowed.
    """
    try:
        return _checked(placeholder, _typed(placeholder, value, base))
    except _Refused as refused:
        reason = f" ({refused})" if str(refused) else ""
        raise ValueError(f"is {_shown(value)}{reason}; it must be {describe_allowed(placeholder)}") from refused


class _Refused(Exception):
    """A value that is not allowed, with the reason where there is more to say."""


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple | dict):
        return (
            f"a {type(value).__name__} of {len(value)}" if len(value) > 8 or isinstance(value, dict) else repr(list(value))[:200]
        )
    return repr(str(value) if isinstance(value, Path) else value)[:200]


def _typed(placeholder: Placeholder, value: Any, base: Path) -> Any:
    kind = placeholder.type
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise _Refused(f"longer than {LONGEST_TEXT} characters")
    if kind in PATH_TYPES:
        return _path(kind, value, base)
    if kind in ("list", "range"):
        return _members("float" if kind == "range" else placeholder.of, value)
    if kind == "choice":
        return _choice(placeholder, value)
    return _SCALARS[kind](value)


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Refused
    text = str(value)
    if not text.isprintable():
        raise _Refused("with characters that cannot be printed")
    return text


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Refused
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise _Refused from error
    if not math.isfinite(number):
        raise _Refused
    return number


def _whole(value: Any) -> int:
    number = _number(value)
    if number != int(number):
        raise _Refused
    return int(value) if isinstance(value, int) else int(number)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    found = _YES_NO.get(str(value).lower()) if isinstance(value, str | int) else None
    if found is None:
        raise _Refused
    return found


def _length_ang(value: Any) -> float:
    if not isinstance(value, str):
        return _number(value)
    found = _LENGTH.fullmatch(value.strip())
    if found is None:
        raise _Refused
    return _number(found[1]) * (10 if found[2] == "nm" else 1)


def _duration_s(value: Any) -> float:
    if not isinstance(value, str):
        return _number(value)
    parts = _DURATION.findall(value)
    if not parts or _DURATION.sub("", value).strip():
        return _number(value)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


_SCALARS = {
    "str": _text,
    "int": _whole,
    "float": _number,
    "bool": _flag,
    "size_ang": _length_ang,
    "duration_s": _duration_s,
}


def _members(kind: str, value: Any) -> list[Any]:
    if isinstance(value, str):
        value = split_members(value)
    members = list(value) if isinstance(value, list | tuple) else [value]
    if len(members) > MOST_MEMBERS:
        raise _Refused(f"more than {MOST_MEMBERS} members")
    return [_SCALARS[kind](member) for member in members]


def _choice(placeholder: Placeholder, value: Any) -> Any:
    if isinstance(value, list | tuple | dict):
        raise _Refused
    found = [choice for choice in placeholder.choices or () if str(choice) == str(value)]
    if not found:
        raise _Refused
    return found[0]


def _path(kind: str, value: Any, base: Path) -> str:
    if not isinstance(value, str | Path) or not str(value).strip() or not str(value).isprintable():
        raise _Refused
    try:
        path = base / Path(value).expanduser()
    except RuntimeError as error:
        raise _Refused(str(error)) from error
    if kind == "folder" and path.is_file():
        raise _Refused("it is a file; give the folder it is in, and a pattern for its name")
    if kind == "file" and path.is_dir():
        raise _Refused("it is a folder")
    if re.search(r"[*?]", str(value)) and not path.exists():
        hint = "give the folder, and the pattern with --pattern" if kind == "folder" else "name one file"
        raise _Refused(f"it is a pattern; {hint}")
    closing = "/" if kind == "path" and str(value).endswith("/") else ""
    return f"{path}{closing}"


def _checked(placeholder: Placeholder, value: Any) -> Any:
    members = value if isinstance(value, list) else [value]
    if placeholder.choices is not None and any(member not in placeholder.choices for member in members):
        raise _Refused
    if placeholder.type == "range" and not (len(members) == 2 and members[0] <= members[1]):
        raise _Refused
    if placeholder.type == "size_ang" and value <= 0:
        raise _Refused("a length is above 0")
    if placeholder.type == "duration_s" and value < 0:
        raise _Refused("a time is at least 0")
    if placeholder.type in _BOUNDED and any(
        isinstance(member, int | float) and _outside(placeholder, member) for member in members
    ):
        raise _Refused
    return value


def _outside(placeholder: Placeholder, number: float) -> bool:
    return (
        (placeholder.ge is not None and number < placeholder.ge)
        or (placeholder.gt is not None and number <= placeholder.gt)
        or (placeholder.le is not None and number > placeholder.le)
        or (placeholder.lt is not None and number >= placeholder.lt)
    )
