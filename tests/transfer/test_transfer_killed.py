"""A transfer is killed (SIGKILL) at every point between two steps: nothing is lost, and nothing removed that was not verified."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from icestream.transfer.copying import POINTS
from transfer.transferring import CHUNK, Bench

CONTENTS = {"grid/a.dm4": os.urandom(2 * CHUNK + 5), "grid/a.xml": b"<a/>", "b.dm4": os.urandom(1000)}


@pytest.fixture(scope="module")
def died(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bench]:
    """For each point, what a transfer left that died there."""
    folder = tmp_path_factory.mktemp("died")
    benches = {point: Bench(folder / point) for point in POINTS}
    for bench in benches.values():
        for number, (name, content) in enumerate(CONTENTS.items()):
            bench.write(name, content, age_s=100 - number)
    command = [sys.executable, "-m", "transfer.dying", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout.split() == [word for point in POINTS for word in (point, str(int(signal.SIGKILL)))], done.stderr
    return benches


def _at_source(bench: Bench) -> dict[str, bytes]:
    return {path.relative_to(bench.source).as_posix(): path.read_bytes() for path in bench.source.rglob("*") if path.is_file()}


@pytest.mark.parametrize("point", POINTS)
def test_whatever_is_there_after_a_death_is_whole(died: dict[str, Bench], point: str) -> None:
    bench = died[point]
    source, target = _at_source(bench), bench.at_target()
    assert {**source, **target} == CONTENTS, "a file is lost, or not whole"
    gone = set(CONTENTS) - set(source)
    assert gone <= {name for name, state in bench.states().items() if state in ("removing", "removed")}
    assert len(gone) == (1 if point == "after_unlink" else 0)


@pytest.mark.parametrize("point", POINTS)
def test_a_transfer_goes_on_after_a_death(died: dict[str, Bench], point: str) -> None:
    bench = died[point]
    bench.run(remove_after_s=0.0)
    assert bench.at_target() == CONTENTS
    assert _at_source(bench) == {}
    assert set(bench.states().values()) == {"removed"}
    assert bench.unfinished() == []
