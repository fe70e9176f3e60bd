from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from icestream.workflows.placeholders import Placeholder, read_value

HERE = Path("/here")


def _one(**fields: Any) -> Placeholder:
    return Placeholder.model_validate({"label": "it", **fields})


@pytest.mark.parametrize(
    ("fields", "given", "value"),
    [
        ({"type": "str"}, "a b", "a b"),
        ({"type": "str"}, 12, "12"),
        ({"type": "int"}, "12", 12),
        ({"type": "int"}, 12.0, 12),
        ({"type": "float", "gt": 0}, "0.5", 0.5),
        ({"type": "bool"}, "yes", True),
        ({"type": "bool"}, False, False),
        ({"type": "folder"}, "raw", "/here/raw"),
        ({"type": "folder"}, "/raw", "/raw"),
        ({"type": "path"}, "refs/", "/here/refs/"),
        ({"type": "choice", "choices": ["tetra", 3]}, "3", 3),
        ({"type": "list", "of": "int"}, "1, 2 3", [1, 2, 3]),
        ({"type": "list", "of": "str", "choices": ["a", "b"]}, ["b"], ["b"]),
        ({"type": "range"}, "[100, 120]", [100.0, 120.0]),
        ({"type": "range"}, (5, 5), [5.0, 5.0]),
        ({"type": "size_ang"}, "12 nm", 120.0),
        ({"type": "size_ang"}, "95 Å", 95.0),
        ({"type": "size_ang"}, 95, 95.0),
        ({"type": "duration_s"}, "1d 2h 20m 15s", 94815.0),
        ({"type": "duration_s"}, "90", 90.0),
    ],
)
def test_text_becomes_a_typed_value(fields: dict[str, Any], given: Any, value: Any) -> None:
    read = read_value(_one(**fields), given, base=HERE)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("fields", "given", "told"),
    [
        ({"type": "str"}, "a\x1b[2J", "cannot be printed"),
        ({"type": "str"}, "x" * 5000, "longer than 4096"),
        ({"type": "int", "le": 4, "ge": 1}, "5", "is '5'; it must be a whole number, at least 1 and at most 4"),
        ({"type": "int"}, "1.5", "a whole number"),
        ({"type": "int"}, True, "is True; it must be a whole number"),
        ({"type": "int"}, "9" * 4000, "a whole number"),
        ({"type": "float", "unit": "kV", "gt": 0}, 0, "is 0; it must be a number (kV), above 0"),
        ({"type": "float", "lt": 1}, 1, "below 1"),
        ({"type": "float"}, "nan", "a number"),
        ({"type": "float"}, [1], "is [1]"),
        ({"type": "bool"}, "perhaps", "yes or no"),
        ({"type": "folder"}, "a\0b", "a folder"),
        ({"type": "folder"}, "~nobody-of-this-name/x", "a folder"),
        ({"type": "choice", "choices": ["a", "b"]}, "c", "is 'c'; it must be one of a, b"),
        ({"type": "choice", "choices": ["a", "b"]}, ["a"], "one of a, b"),
        ({"type": "list", "of": "int"}, "1, two", "a list such as 1, 2; each a whole number"),
        ({"type": "list", "le": 3}, [1, 4], "at most 3"),
        ({"type": "list"}, list(range(2000)), "more than 1000 members"),
        ({"type": "range"}, "120 100", "the smaller first"),
        ({"type": "range"}, [1, 2, 3], "two numbers"),
        ({"type": "range", "gt": 0}, [0, 3], "above 0"),
        ({"type": "size_ang"}, "0", "a length is above 0"),
        ({"type": "size_ang"}, "12 miles", "a length in Å"),
        ({"type": "duration_s"}, -1, "a time is at least 0"),
        ({"type": "duration_s"}, "1h of rest", "a time in s"),
    ],
)
def test_what_is_not_allowed_is_told_with_what_is(fields: dict[str, Any], given: Any, told: str) -> None:
    with pytest.raises(ValueError, match="it must be") as caught:
        read_value(_one(**fields), given, base=HERE)
    assert told in str(caught.value)


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="it is a file"):
        read_value(_one(type="folder"), tmp_path / "file", base=HERE)
    with pytest.raises(ValueError, match="it is a folder"):
        read_value(_one(type="file"), str(tmp_path), base=HERE)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"type": "choice"}, "a choice needs choices"),
        ({"type": "bool", "choices": [1]}, "choices belong to"),
        ({"type": "str", "ge": 1}, "belong to the types"),
        ({"type": "int", "default": "many"}, "is 'many'"),
        ({"type": "float", "gt": 0, "default": 0}, "above 0"),
        ({"type": "colour"}, "Input should be"),
        ({"label": "a\x1b[2Jb"}, "text that can be printed"),
        ({"env": "A-B"}, "should match pattern"),
        ({"labels": "x"}, "Extra inputs"),
    ],
)
def test_a_placeholder_that_contradicts_itself_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        _one(**fields)
