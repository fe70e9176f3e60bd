"""What reaches a terminal: text, and nothing that would control it."""

import io
import json

import pytest

from icestream.cli.console import PlainConsole, make_table, print_json, write_out_controls

_HOSTILE = "\x1b]0;title\x07\x1b[2Jgone\r\x9b31m\u202etxt.exe\ud800"
_WRITTEN = r"\x1b]0;title\x07\x1b[2Jgone\r\x9b31m\u202etxt.exe\ud800"


@pytest.mark.parametrize("markup", [True, False])
def test_a_text_cannot_control_the_terminal(markup: bool) -> None:
    console = PlainConsole(file=io.StringIO(), width=200)
    table = make_table("reason")
    table.add_row(_HOSTILE)
    console.print(_HOSTILE, markup=markup)
    console.print(table)
    console.print(f"failed: {_HOSTILE}", soft_wrap=True, style="bold")
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(char.isprintable() or char == "\n" for char in printed)
    assert printed.count(r"\x1b[2Jgone") == 3


def test_colours_of_our_own_stay() -> None:
    console = PlainConsole(file=io.StringIO(), force_terminal=True, color_system="standard", width=80, highlight=False)
    console.print("[red]a[/]\x1b[5m")
    assert console.file.getvalue() == "\x1b[31ma\x1b[0m\\x1b[5m\n"  # type: ignore[attr-defined]


def test_characters_are_written_out() -> None:
    assert write_out_controls(_HOSTILE) == _WRITTEN
    assert write_out_controls("a\tb\nÅ µm 粒子 \N{NO-BREAK SPACE}–") == "a\tb\nÅ µm 粒子 \N{NO-BREAK SPACE}–"


def test_json_cannot_control_the_terminal_and_stays_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"reason": _HOSTILE, "unit": "Å"})
    printed = capsys.readouterr().out
    assert all(char.isprintable() or char == "\n" for char in printed)
    assert json.loads(printed) == {"reason": _HOSTILE, "unit": "Å"}
