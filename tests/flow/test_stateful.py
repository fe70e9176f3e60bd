"""Anything in any order: arrivals, failures, kills, edits, restarts and closes, against a simple model of what must come out.

More examples, and others at each run: ``ICESTREAM_STATEFUL=200 python -m pytest tests/flow/test_stateful.py``.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from icestream.flow.commands.requests import (
    Branch,
    Close,
    Command,
    Continue,
    Override,
    Pause,
    Recompute,
    Release,
    Reopen,
    Reset,
    Restart,
    Resume,
    Retry,
    Set,
    Stop,
)
from toys.life import Life
from virtual.machine import quiet_settings

EXAMPLES = int(os.environ.get("ICESTREAM_STATEFUL", "0"))
ROOM = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a private folder is made in it

STEPS = ("numbers", "triple", "even", "odd", "both", "any", "gate", "batch", "sums", "total", "late", "newest")
PARAMS: list[tuple[str, str, list[Any]]] = [
    ("triple", "factor", [3, 4, 5]),
    ("even", "divisor", [2, 3]),
    ("odd", "factor", [5, 7]),
    ("gate", "count", [3, 5]),
    ("batch", "count", [4, 3]),
    ("total", "fail_on", [[], [21, 30]]),
]
NUMBERS = st.integers(0, 40).map(str)
EDITS = st.sampled_from([Set(step=step, params={name: value}) for step, name, values in PARAMS for value in values])
DECISIONS = st.builds(
    lambda unit, where: Override(unit=unit, step=where[0], verdict=where[1]),
    NUMBERS,
    st.sampled_from(
        [
            ("numbers", "reject"),
            ("numbers", "lift"),
            ("triple", "reject"),
            ("triple", "lift"),
            ("even", "accept"),
            ("even", "reject"),
            ("even", "lift"),
            ("gate", "accept"),
            ("gate", "reject"),
            ("gate", "lift"),
        ]
    ),
)

RECOMPUTATIONS = st.builds(
    lambda unit, step, factor: Recompute(
        unit=unit, step=step, lift=factor is None, params={} if factor is None else {"factor": factor}
    ),
    NUMBERS,
    st.sampled_from(["triple", "odd"]),
    st.sampled_from([None, 3, 8, 12]),
)


class Session(RuleBasedStateMachine):
    """One session; hypothesis looks for a life of it that ends otherwise than it must."""

    @initialize(seed=st.integers(0, 2**16), rebuild=st.sampled_from([0.05, 0.5, 1.0]), newest=st.booleans())
    def begin(self, seed: int, rebuild: float, newest: bool) -> None:
        self.room = tempfile.TemporaryDirectory(dir=ROOM)
        self.life = Life(Path(self.room.name), seed)
        self.life.machine.settings = quiet_settings(rebuild_fraction=rebuild, newest_first=newest)
        self.branches = 0

    def _ask(self, command: Command) -> None:
        self.life.ask(command)

    @rule(names=st.lists(NUMBERS, min_size=1, max_size=8))
    def numbers_arrive(self, names: list[str]) -> None:
        self.life.arrive(names)

    @rule(number=st.integers(0, 3))
    def something_broken_arrives(self, number: int) -> None:
        self.life.arrive([f"broken{number}"])

    @rule(cycles=st.integers(1, 12))
    def it_runs(self, cycles: int) -> None:
        self.life.machine.start()
        self.life.machine.turn(cycles)

    @rule(points=st.integers(1, 60))
    def its_runner_is_killed(self, points: int) -> None:
        self.life.machine.kill_in = points
        self.life.machine.start()
        self.life.machine.turn(10)

    @rule()
    def its_runner_is_replaced(self) -> None:
        self.life.machine.replace_runner()

    @rule(cycles=st.integers(1, 6))
    def its_runner_is_stopped(self, cycles: int) -> None:
        self.life.machine.stop()
        self.life.machine.turn(cycles)

    @rule(dies=st.sampled_from([0.0, 0.1, 0.6]), transient=st.sampled_from([0.0, 0.2]), away=st.sampled_from([0.0, 0.02]))
    def misfortunes_change(self, dies: float, transient: float, away: float) -> None:
        misfortunes = self.life.machine.misfortunes
        misfortunes.worker_dies, misfortunes.transient, misfortunes.store_away = dies, transient, away
        misfortunes.source_dies = dies / 5

    @rule(seconds=st.integers(1, 100))
    def the_disk_is_full(self, seconds: int) -> None:
        self.life.machine.misfortunes.full_until_s = self.life.machine.clock.now_s + seconds

    @rule(edit=EDITS)
    def a_parameter_is_set(self, edit: Set) -> None:
        self._ask(edit)

    @rule(decision=DECISIONS)
    def a_person_decides(self, decision: Override) -> None:
        self._ask(decision)

    @rule(command=RECOMPUTATIONS)
    def one_exposure_is_computed_again(self, command: Recompute) -> None:
        self._ask(command)

    @rule(command=st.sampled_from([Pause(), Resume(), Continue(), Retry(), Stop(), Stop(now=True)]))
    def it_is_asked(self, command: Command) -> None:
        self._ask(command)

    @rule(step=st.sampled_from(STEPS), now=st.booleans())
    def a_stream_is_closed(self, step: str, now: bool) -> None:
        self._ask(Close(step=step, now=now))

    @rule(step=st.sampled_from(STEPS))
    def a_stream_is_reopened(self, step: str) -> None:
        self._ask(Reopen(step=step))

    @rule(step=st.sampled_from(["gate", "batch"]))
    def a_gate_is_released(self, step: str) -> None:
        self._ask(Release(step=step))

    @rule(step=st.sampled_from(STEPS))
    def it_is_restarted_from(self, step: str) -> None:
        self._ask(Restart(step=step))

    @rule(step=st.sampled_from(STEPS))
    def it_is_reset_from(self, step: str) -> None:
        self._ask(Reset(step=step))

    @rule(step=st.sampled_from(["triple", "odd", "total"]))
    def it_is_branched(self, step: str) -> None:
        if self.branches < 2:
            self.branches += 1
            self._ask(Branch(step=step, name=f"twin{self.branches}", params={} if step == "total" else {"factor": 11}))

    @rule()
    def it_is_asked_at_rest(self) -> None:
        self.life.machine.answer_here()

    @rule()
    def what_was_refused_is_healed(self) -> None:
        self.life.heal()

    @invariant()
    def nothing_is_wrong(self) -> None:
        if hasattr(self, "life"):
            self.life.look()

    def teardown(self) -> None:
        if hasattr(self, "life"):
            try:
                self.life.end()
            finally:
                self.room.cleanup()


def run(examples: int, steps: int, *, derandomize: bool) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=derandomize,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Session, settings=profile)


def test_whatever_happens_the_end_is_what_it_must_be() -> None:
    run(8, 25, derandomize=True)


@pytest.mark.skipif(not EXAMPLES, reason="ICESTREAM_STATEFUL=N looks at N lives")
def test_many_lives_end_as_they_must() -> None:
    run(EXAMPLES, 50, derandomize=False)
