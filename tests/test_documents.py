"""The YAML that people write: what is refused costs no memory, and what is read is what was meant."""

from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import BaseModel, Field

from icestream.documents import DEEPEST, MOST_VALUES, parse_document, parse_typed_value, read_document, read_lists, split_members
from toys.files import YAML_BOMB

MERGED_BOMB = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join(10 * [f'*a{n - 1}'])}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (YAML_BOMB, f"more than {MOST_VALUES} values, those behind aliases included"),
        (MERGED_BOMB, f"more than {MOST_VALUES} values"),
        ("[" + "1," * (MOST_VALUES + 1) + "]", f"more than {MOST_VALUES} values"),
        ("&a [*a]", r"is not YAML: an alias stands for what it is part of \(line 1\)"),
        ("x: 1\ny: &a {b: *a}", r"part of \(line 2\)"),
        ("[" * (DEEPEST + 2) + "]" * (DEEPEST + 2), f"nested more than {DEEPEST} deep"),
        ("[" * 5000, f"nested more than {DEEPEST} deep"),
        ("*a", r"is not YAML: found undefined alias 'a' \(line 1, column 1\)"),
        ("a: [", "is not YAML: while parsing a flow node"),
        ("a: \x07", "is not YAML: unacceptable character"),
        ("!!python/object/apply:os.getcwd []", "is not YAML: could not determine a constructor"),
        ("!!timestamp 2024-01-01", "is not YAML: could not determine a constructor"),
        ("1: a", "the name 1 is not text; write it in quotes"),
        ("a: {b: 1}\nc: 2\na: 3", r"is not YAML: 'a' is written twice, first in line 1 \(line 3, column 1\)"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_hostile_text_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_document(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
        ("a: &x {p: 1}\nb: {<<: *x, q: 2}", {"a": {"p": 1}, "b": {"p": 1, "q": 2}}),
        ("a: &x {p: 1}\nb: {<<: *x, p: 2}", {"a": {"p": 1}, "b": {"p": 2}}),
        ("[2024-01-01, 12:00:00, 010, 1e5, .nan, .inf]", ["2024-01-01", "12:00:00", "010", "1e5", ".nan", ".inf"]),
        (
            "[1, -2, +3, 0x10, 1.5, -.5, 2., 1.5e-3, yes, no, ~, null]",
            [1, -2, 3, 16, 1.5, -0.5, 2.0, 0.0015, True, False, None, None],
        ),
    ],
    ids=repr,
)
def test_values_are_those_of_json(text: str, value: Any) -> None:
    assert parse_document(text) == value


@pytest.mark.parametrize(
    "value", ["1", "1.5", "yes", "null", "", "2024-01-01", "12:00:00", "010", "0x1", "1e5", ".nan", "*a", "=", "<<", "9" * 5000]
)
def test_a_text_that_was_dumped_is_read_as_the_same_text(value: str) -> None:
    assert parse_document(yaml.safe_dump({"a": [value]})) == {"a": [value]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("*.tiff", "*.tiff"),
        ("[ab]*.tiff", "[ab]*.tiff"),
        ("{a,b}*.tiff", "{a,b}*.tiff"),
        ("&x", "&x"),
        ("!x", "!x"),
        ("@x", "@x"),
        ("a #1", "a #1"),
        ("#1", "#1"),
        ("a: b", "a: b"),
        ("- a", "- a"),
        ("|", "|"),
        ("50%", "50%"),
        ("0,180", "0,180"),
        ("[0.5, 3]", [0.5, 3]),
        ("{from: boxsize.box_px}", {"from": "boxsize.box_px"}),
        ("'7'", "7"),
        ('"*x"', "*x"),
        (" 7 ", 7),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ("", None),
    ],
)
def test_what_is_typed_is_a_list_a_number_or_plain_text(text: str, value: Any) -> None:
    assert parse_typed_value(text) == value


@pytest.mark.parametrize("text", ["[1", "{a: 1", "'a", '"a', "[*a]", "{a: &b [*b]}"])
def test_a_bracket_that_is_not_closed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not YAML"):
        parse_typed_value(text)


class Ranges(BaseModel):
    pair: tuple[float, float] = (0, 1)
    maybe: tuple[int, int] | None = None
    names: list[str] = []
    bounded: Annotated[list[int], Field(min_length=1)] = [1]
    either: str | list[str] = "x"
    text: str = ""


@pytest.mark.parametrize("written", ["0,180", "[0,180]", "0 180", "(0; 180)", [0, 180], (0, 180), ["0", "180"]], ids=repr)
def test_a_list_is_the_same_however_it_is_written(written: Any) -> None:
    read = Ranges.model_validate(read_lists(Ranges, {"pair": written, "maybe": written, "bounded": written}))
    assert (read.pair, read.maybe, read.bounded) == ((0, 180), (0, 180), [0, 180])


def test_only_lists_are_read_as_lists() -> None:
    given = {"either": "a, b", "text": "0, 180", "maybe": None, "names": "a, b", "bounded": 5, "unknown": "1, 2"}
    assert read_lists(Ranges, given) == {**given, "names": ["a", "b"], "bounded": [5]}


def test_members_have_no_empty_ones() -> None:
    assert split_members(" [ 1 ,, 2;3\n] ") == ["1", "2", "3"]


def test_a_file_is_named_by_what_is_wrong_with_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_document(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not text"):
        read_document(tmp_path / "binary")
    (tmp_path / "large").write_text("a: " + "x" * 2000)
    with pytest.raises(ValueError, match="is larger than 1 KiB"):
        read_document(tmp_path / "large", largest_bytes=1 << 10)
    assert read_document(tmp_path / "large") == {"a": "x" * 2000}
