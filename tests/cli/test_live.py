import io
from typing import Any

import pytest
from rich.console import Console

from icestream.cli.live import describe_status, draw_status, follow_run, tell_pauses
from icestream.flow.runner.status import RunStatus, StepStatus
from icestream.flow.storage.pauses import ActivePause

STATUS = RunStatus(
    (
        StepStatus("movies", 0, 0, 7, 1, 0, closed=True, note="7 files arrived"),
        StepStatus("ctf", 2, 1, 3, 0, 2, closed=False, note="[waits]"),
    )
)


def _console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120)


def _printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_line_counts_what_is_decided_of_what_is_known() -> None:
    assert describe_status(STATUS) == "movies 8/8 (1 failed)  ctf 5/8"


def test_the_table_shows_every_count_and_keeps_brackets() -> None:
    console = _console(terminal=False)
    console.print(draw_status(STATUS))
    movies, ctf = _printed(console).splitlines()[1:]
    assert movies.split()[-5:] == ["7", "1", "7", "files", "arrived"]
    assert ctf.split()[-5:] == ["3", "2", "1", "2", "[waits]"]


def test_a_narrow_terminal_keeps_names_and_numbers() -> None:
    step = StepStatus("particles_picks_wide", 678, 9, 12345, 1, 2, closed=False, note="30 files so far; more")
    console = Console(file=io.StringIO(), width=80)
    console.print(draw_status(RunStatus((step,))))
    head, row = _printed(console).splitlines()[:2]
    assert head.split() == ["step", "done", "waiting", "running", "failed", "set", "aside"]
    for shown in ("particles_picks_wide", "12345", "678", " 9 ", " 1 ", " 2 ", "█", "░"):
        assert shown in row
    assert max(len(head), len(row)) <= 80


def test_columns_without_a_number_are_left_out() -> None:
    console = Console(file=io.StringIO(), width=60)
    console.print(draw_status(RunStatus((StepStatus("movies", 0, 0, 7, 0, 0, closed=True, note="", absent=2),))))
    assert _printed(console).split("\n")[0].split() == ["step", "done", "absent"]


def test_on_a_terminal_that_is_too_narrow_each_step_is_a_line() -> None:
    step = StepStatus("particles_picks_wide", 678, 9, 12345, 1, 2, closed=False, note="30 files", skipped=3, absent=4)
    console = Console(file=io.StringIO(), width=60)
    console.print(draw_status(RunStatus((step,))))
    told = "particles_picks_wide: 12345 done, 678 waiting, 9 running, 1 failed, 2 set aside, 3 skipped, 4 absent"
    assert " ".join(_printed(console).split()) == told
    assert max(map(len, _printed(console).splitlines())) <= 60


@pytest.mark.parametrize("color", [None, "truecolor"])
@pytest.mark.parametrize(("encoding", "full", "empty"), [("utf-8", "█", "░"), ("ascii", "#", "-")])
def test_full_and_empty_bars_differ_without_colour(color: Any, encoding: str, full: str, empty: str) -> None:
    drawn = []
    for done in (0, 8):
        file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        console = Console(file=file, width=100, no_color=True, color_system=color)
        console.print(draw_status(RunStatus((StepStatus("a", 8 - done, 0, done, 0, 0, closed=False, note=""),))))
        file.seek(0)
        drawn.append(file.read())
    assert (drawn[0].count(full), drawn[0].count(empty)) == (0, 24)
    assert (drawn[1].count(full), drawn[1].count(empty)) == (24, 0)


def test_a_quiet_run_tells_its_pauses_once() -> None:
    console = _console(terminal=False)
    show = tell_pauses(console)
    paused = RunStatus(STATUS.steps, pause=ActivePause("surroundings", "/data: less than 1 GB free"))
    for status in (STATUS, paused, paused, STATUS, STATUS):
        show(status)
    lines = [line.partition("  ")[2] for line in _printed(console).splitlines()]
    assert lines == ["paused by itself: /data: less than 1 GB free; resumes as soon as that is fixed", "resumed"]


def test_a_pause_is_shown_with_its_reason() -> None:
    held = RunStatus(STATUS.steps, pause=ActivePause("person", "[lunch]", "eva"))
    console = _console(terminal=False)
    console.print(draw_status(held))
    assert "paused by eva: [lunch]" in _printed(console)
    assert describe_status(held).startswith("paused by eva: [lunch]  movies 8/8")


def test_a_log_gets_the_last_state_once() -> None:
    console = _console(terminal=False)
    with follow_run(console) as show:
        for _ in range(5):
            show(STATUS)
    assert _printed(console).count("ctf 5/8") == 1


def test_a_terminal_gets_a_table() -> None:
    console = _console(terminal=True)
    with follow_run(console) as show:
        show(STATUS)
    assert "set aside" in _printed(console)


def test_each_notice_is_printed_once() -> None:
    console = _console(terminal=False)
    with follow_run(console) as show:
        for notices in ((), ("warning: the gain is empty",), ("warning: the gain is empty", "alert: [disk]")):
            for _ in range(3):
                show(RunStatus(STATUS.steps, notices))
    assert _printed(console).count("the gain is empty") == 1
    assert _printed(console).count("alert: [disk]") == 1
