import io

from rich.console import Console

from icestream.cli.live import describe_status, draw_status, follow_run
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
    for shown in ("particles_picks_wide", "12345", "678", " 9 ", " 1 ", " 2 ", "━"):
        assert shown in row
    assert max(len(head), len(row)) <= 80


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
