"""Signals that ask a process to stop, also those that interrupt each other."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

from icestream.flow.runner.stopping import StopRequests, on_stop_signals
from icestream.flow.storage.session import SessionDocument, create_session

LIMIT_S = 60.0
# A second signal comes at every line that the handler of the first one reaches.
INTERRUPTED = """
import signal, sys
from contextlib import closing
from pathlib import Path
from icestream.flow.runner.supervisor import Supervisor
from icestream.flow.storage.session import open_session
from icestream.settings import Settings
from icestream.flow.runner.stopping import on_stop_signals

def interrupt(frame, event, argument):
    if event == "line" and attendance.stops.count < 20:
        signal.raise_signal(signal.SIGTERM)
    return interrupt

attendance = Supervisor(open_session(Path(sys.argv[1])), Settings(), None)
with closing(attendance.stops) as stops, on_stop_signals(attendance.stop):
    sys.settrace(interrupt)
    signal.raise_signal(signal.SIGTERM)
    stops.wait(60.0)
    sys.settrace(None)
    print(stops.count)
"""


def test_whoever_waits_is_woken_at_once() -> None:
    with closing(StopRequests()) as stops:
        stops.wait(0.0)
        assert stops.count == 0
        threading.Timer(0.05, stops.ask).start()
        began_s = time.monotonic()
        stops.wait(LIMIT_S)
        assert time.monotonic() - began_s < LIMIT_S / 2
        assert stops.count == 1
        stops.wait(LIMIT_S)  # who was asked before does not sleep
        assert time.monotonic() - began_s < LIMIT_S / 2


def test_asking_without_end_never_blocks() -> None:
    with closing(StopRequests()) as stops:
        for _ in range(100_000):  # more than a pipe holds
            stops.ask()
        assert stops.count == 100_000


def test_signals_are_heard_within_the_block_only() -> None:
    heard: list[None] = []
    before = signal.getsignal(signal.SIGTERM)
    with on_stop_signals(lambda: heard.append(None)):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert len(heard) == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_hears_no_signals() -> None:
    before = signal.getsignal(signal.SIGTERM)
    found: list[object] = []

    def look() -> None:
        with on_stop_signals(lambda: None):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


def test_a_signal_within_a_signal_does_not_hang_the_runner(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    create_session(folder, SessionDocument.model_validate({"name": "x", "steps": {"movies": {"use": "import_movies"}}}))
    command = [sys.executable, "-c", INTERRUPTED, str(folder)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_S)
    assert int(told.stdout) > 1
