"""The progress of a run on the terminal: a table that refreshes, or a line now and then in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

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


def draw_status(status: RunStatus) -> Table:
    """Return the status as a table with a bar for each step, and above it why nothing goes on."""
    held = None if status.pause is None else f"[bold yellow]{escape(status.pause.sentence)}[/]"
    table = Table(box=None, pad_edge=False, header_style="bold", title=held, title_justify="left")
    table.add_column("step", no_wrap=True)
    table.add_column(min_width=_NARROW_BAR, max_width=_BAR_WIDTH)  # on a narrow terminal bars and notes give way, numbers never
    for name in ("done", "waiting", "running", "failed", "set aside"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(min_width=1)
    for step in status.steps:
        decided, total = _decided(step), _total(step)
        table.add_row(
            f"[green]{step.name}[/]" if step.closed else step.name,
            ProgressBar(total=max(total, 1), completed=decided),
            str(step.done),
            _quiet(step.waiting),
            _quiet(step.running),
            f"[red]{step.failed}[/]" if step.failed else "",
            _quiet(step.rejected),
            Text(step.note, style="dim", no_wrap=True, overflow="ellipsis"),
        )
    return table


def describe_status(status: RunStatus) -> str:
    """Return the status as one line."""
    held = [] if status.pause is None else [status.pause.sentence]
    return "  ".join([*held, *(_describe_step(step) for step in status.steps)])


def _describe_step(step: StepStatus) -> str:
    failed = f" ({step.failed} failed)" if step.failed else ""
    return f"{step.name} {_decided(step)}/{_total(step)}{failed}"


def _decided(step: StepStatus) -> int:
    return step.done + step.failed + step.rejected


def _total(step: StepStatus) -> int:
    return _decided(step) + step.waiting + step.running


def _quiet(count: int) -> str:
    return str(count) if count else ""
