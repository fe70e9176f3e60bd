"""What the stateful test and the soak have found, each as the shortest life that showed it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from icestream.flow.commands.requests import Branch, Override, Set
from icestream.flow.storage import schema
from toys.life import Life
from toys.model import read_rows

ROOM = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a private folder is made in it


@pytest.fixture
def life() -> Iterator[Life]:
    with tempfile.TemporaryDirectory(dir=ROOM) as folder:
        yield Life(Path(folder))


def test_results_that_are_there_already_are_taken_over_in_order(life: Life) -> None:
    life.arrive(["1", "2", "3"])
    life.machine.run_out()
    for verdict in ("accept", "lift"):
        life.ask(Override(unit="1", step="even", verdict=verdict))
        life.settle()
    life.end()


@pytest.mark.parametrize("verdict", ["accept", "reject"])
def test_a_gate_is_overruled_for_one_exposure(life: Life, verdict: str) -> None:
    life.arrive(["0", "2"])
    life.machine.start()
    life.machine.turn(60)
    life.ask(Override(unit="2", step="gate", verdict=verdict))
    life.machine.turn(5)
    assert [row["state"] for row in read_rows(life.session, schema.command)] == ["done"]
    life.arrive(["8", "10", "12"])
    life.end()


@pytest.mark.parametrize("point", range(1, 10))
def test_an_edit_is_carried_out_once_wherever_the_runner_dies(life: Life, point: int) -> None:
    life.arrive(["1", "2"])
    life.machine.start()
    life.machine.turn(3)
    life.ask(Branch(step="odd", name="odder", params={"factor": 7}))
    life.ask(Set(step="triple", params={"factor": 4}))
    life.machine.kill_in = point
    life.machine.turn(6)
    life.end()
    assert [row["state"] for row in read_rows(life.session, schema.command)] == ["done"] * 3
