from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field

from icestream.cli.fields import describe_fields
from icestream.records import FileRef
from icestream.units import Angstrom


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Sample(BaseModel):
    whole: int = Field(3, ge=1, lt=9, description="A number.")
    range_ang: tuple[Angstrom, Angstrom] = Field((1.0, 2.0), description="Two")
    maybe: Angstrom | None = Field(None, gt=0, description="Perhaps")
    must: float = Field(description="Needed")
    choice: Literal["a", "b"] = Field("a", description="One of two")
    colour: Colour = Field(Colour.RED, description="Of an enumeration")
    on: bool = Field(True, description="Switch")
    many: list[int] = Field(default_factory=list, description="Several")
    cores: int = Field(default_factory=lambda: 7, description="Counted")
    file: FileRef = Field("session:a", description="A file")
    text: str = Field("", description="Empty text")
    renamed: int = Field(1, alias="in", description="Has an alias")


def test_fields_are_described_in_words() -> None:
    rows = {field.name: (field.type, field.unit, field.default, field.range) for field in describe_fields(Sample)}
    assert rows == {
        "whole": ("whole number", "", "3", "≥ 1, < 9"),
        "range_ang": ("(number, number)", "Å", "[1.0, 2.0]", ""),
        "maybe": ("number or unset", "Å", "unset", "> 0"),
        "must": ("number", "", "required", ""),
        "choice": ("a | b", "", "a", ""),
        "colour": ("red | blue", "", "red", ""),
        "on": ("yes/no", "", "true", ""),
        "many": ("list of whole number", "", "empty", ""),
        "cores": ("whole number", "", "from the machine", ""),
        "file": ("file", "", "session:a", ""),
        "text": ("text", "", '""', ""),
        "in": ("whole number", "", "1", ""),
    }


def test_descriptions_lose_their_last_stop() -> None:
    assert describe_fields(Sample)[0].description == "A number"
