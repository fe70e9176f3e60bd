"""The progress of a run on the terminal: a table that refreshes, or a line now and then in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from icestream.cli.console import FittingTable, columns_with_something
from icestream.flow.runner.status import RunStatus, StepStatus

_REFRESH_S = 0.25
_LINE_EVERY_S = 5.0
_BAR_WIDTH, _NARROW_BAR = 24, 8


@contextmanager
def follow_run(console: Console) -> Iterator[Callable[[RunStatus], None]]:
    """Give a function that shows a `RunStatus`."""
    if not console.is_terminal:
        lines = _Lines(console)
        yield lines.show
        lines.show_last()
        return
    with Live(console=console, auto_refresh=False) as live:
        picture = _Picture(live)
        yield picture.show
        picture.show_last()


def tell_pauses(console: Console) -> Callable[[RunStatus], None]:
    """Return a function that prints when and why the session pauses, and when it resumes, and nothing else."""
    shown: list[str | None] = [None]

    def show(status: RunStatus) -> None:
        paused = None if status.pause is None else status.pause.sentence
        if paused != shown[0]:
            shown[0] = paused
            console.print(f"{time.strftime('%H:%M:%S')}  {paused or 'resumed'}", markup=False, soft_wrap=True)

    return show


class _News:
    """Prints each notice once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: tuple[str, ...] = ()

    def show(self, status: RunStatus) -> None:
        known = self._seen[-len(status.notices) :] if status.notices else ()
        overlap = next(size for size in range(len(known), -1, -1) if status.notices[:size] == known[len(known) - size :])
        new = status.notices[overlap:]
        for notice in new:
            self._console.print(f"{time.strftime('%H:%M:%S')}  {notice}", markup=False, soft_wrap=True)
        self._seen = status.notices


class _Picture:
    def __init__(self, live: Live) -> None:
        self._live, self._shown_at, self._last = live, 0.0, RunStatus(())
        self._news = _News(live.console)

    def show(self, status: RunStatus) -> None:
        self._last = status
        self._news.show(status)
        if time.monotonic() - self._shown_at >= _REFRESH_S:
            self.show_last()

    def show_last(self) -> None:
        self._shown_at = time.monotonic()
        self._live.update(draw_status(self._last), refresh=True)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console, self._shown_at, self._shown, self._last = console, 0.0, "", ""
        self._news = _News(console)

    def show(self, status: RunStatus) -> None:
        self._news.show(status)
        self._last = describe_status(status)
        if time.monotonic() - self._shown_at >= _LINE_EVERY_S:
            self.show_last()

    def show_last(self) -> None:
        if self._last != self._shown:
            self._shown_at, self._shown = time.monotonic(), self._last
            self._console.print(f"{time.strftime('%H:%M:%S')}  {self._last}", markup=False, soft_wrap=True)


def draw_status(status: RunStatus) -> Group:
    """Return the status as a table with a bar for each step, and above it why nothing goes on."""
    paused = [] if status.pause is None else [Text(status.pause.sentence, style="bold yellow")]
    return Group(*paused, _Steps(status.steps))


@dataclass(frozen=True)
class _Steps:
    """The steps as a table; notes take what room is left, and where there is too little each step is a line."""

    steps: tuple[StepStatus, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = [_counts(step) for step in self.steps]
        names = columns_with_something(rows, always=("done",))
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("step", no_wrap=True)
        table.add_column(min_width=_NARROW_BAR, max_width=_BAR_WIDTH)
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column(min_width=1)
        for step, row in zip(self.steps, rows, strict=True):
            table.add_row(
                Text(step.name, style="green" if step.closed else ""),
                _Bar(_decided(step), _total(step)),
                *(Text(row[name], style="red" if name == "failed" else "") for name in names),
                Text(step.note, style="dim", no_wrap=True, overflow="ellipsis"),
            )
        yield FittingTable(table, [_say_counts(step, row) for step, row in zip(self.steps, rows, strict=True)])


@dataclass(frozen=True)
class _Bar:
    """How much of a step is decided; what is left looks different without colour too."""

    done: int
    total: int

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        full, empty = "#-" if options.ascii_only else "█░"
        width = min(_BAR_WIDTH, options.max_width)
        n_full = width * self.done // self.total if self.total else 0
        yield Segment(full * n_full, Style(color="green" if self.done == self.total else "magenta"))
        yield Segment(empty * (width - n_full), Style(dim=True))

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(_NARROW_BAR, min(_BAR_WIDTH, options.max_width))


def _counts(step: StepStatus) -> dict[str, str]:
    counts = {
        "done": step.done,
        "waiting": step.waiting,
        "running": step.running,
        "failed": step.failed,
        "set aside": step.rejected,
        "skipped": step.skipped,
        "absent": step.absent,
    }
    return {name: str(count) if count or name == "done" else "" for name, count in counts.items()}


def _say_counts(step: StepStatus, row: dict[str, str]) -> str:
    return f"{step.name}: {', '.join(f'{count} {name}' for name, count in row.items() if count)}"


def describe_status(status: RunStatus) -> str:
    """Return the status as one line."""
    paused = [] if status.pause is None else [status.pause.sentence]
    return "  ".join([*paused, *(_describe_step(step) for step in status.steps)])


def _describe_step(step: StepStatus) -> str:
    failed = f" ({step.failed} failed)" if step.failed else ""
    return f"{step.name} {_decided(step)}/{_total(step)}{failed}"


def _decided(step: StepStatus) -> int:
    return step.done + step.failed + step.rejected


def _total(step: StepStatus) -> int:
    return _decided(step) + step.waiting + step.running
