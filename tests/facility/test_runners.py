"""How a runner that ends while somebody waits for its start is judged: by its exit status."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from icestream.errors import ExitStatus, SessionError
from icestream.facility import runners
from toys.session import make_toy_session, toy_steps


def ends_with(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runners be processes that end at once with a status, after a word in the log."""

    def launch(session: Path, _options: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
        log = session / "logs" / "runner.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text("a word\n", encoding="utf-8")
        return subprocess.Popen([sys.executable, "-c", f"import os; os._exit({status})"]), 0

    monkeypatch.setattr(runners, "launch_runner", launch)


@pytest.mark.parametrize("status", [0, ExitStatus.SOME_FAILED, ExitStatus.INTERRUPTED])
def test_a_runner_that_ends_at_once_as_it_was_asked_is_no_error(status, tmp_path, monkeypatch):
    session = make_toy_session(tmp_path, toy_steps(1), numbers=range(1))
    ends_with(status, monkeypatch)
    assert runners.start_runner(session.folder) > 0


@pytest.mark.parametrize("status", [ExitStatus.ERROR, ExitStatus.USAGE, 86])
def test_a_runner_that_dies_at_once_is_told_with_its_words(status, tmp_path, monkeypatch):
    session = make_toy_session(tmp_path, toy_steps(1), numbers=range(1))
    ends_with(status, monkeypatch)
    with pytest.raises(SessionError, match=f"exited at once with status {status:d}: a word"):
        runners.start_runner(session.folder)
