"""A virtual machine for the engine: runner, workers and sources in one process, on a virtual clock, repeatable from a seed.

The runner, the scheduler, the store, the sources and the code around a step are the real ones. Only the processes are not
(`virtual.pool`), nor the clock (`virtual.time`). A runner can be killed at every fault
point and before, in and after every transaction: it is then left as it is, its connections are dropped without a commit,
nothing more is written on its behalf, and the next one is built from the folder alone. A power cut (files that were not
synced) is not simulated.

Two runs with one seed are the same only if Python's hashes are, too: set ``PYTHONHASHSEED``.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from icestream.errors import StaleRunner, StoreUnavailable
from icestream.flow.commands.requests import Command, ask
from icestream.flow.execution.pool import Pool
from icestream.flow.runner import fault_points
from icestream.flow.runner.health import Health
from icestream.flow.runner.loop import Runner
from icestream.flow.runner.status import RunReport
from icestream.flow.storage import claiming
from icestream.flow.storage.session import Session, open_session
from icestream.settings import Settings
from virtual.pool import Misfortunes, VirtualPool
from virtual.time import ProcessDied, VirtualClock, virtual_machine_time


def quiet_settings(**changes: Any) -> Settings:
    """Return the settings of a virtual machine: two cores, no ledger shared with others, no GPU."""
    values: dict[str, Any] = {"cores": 2, "memory_gb": 8.0, "ledger": "", "gpus": "", "min_free_gb": 0.0, "drain_s": 30.0}
    return Settings(**(values | changes))


@dataclass
class VirtualSurroundings(Health):
    """The surroundings of a session on a virtual machine, whose disk may be full."""

    machine: "VirtualMachine | None" = None

    def trouble(self) -> str | None:
        """Return why nothing can be processed at present, or None."""
        full = self.machine is not None and self.machine.clock.now_s < self.machine.misfortunes.full_until_s
        return "the disk is full" if full else super().trouble()


@dataclass
class VirtualRunner(Runner):
    """A runner that is moved cycle by cycle, and can be killed."""

    machine: "VirtualMachine | None" = None

    def __post_init__(self) -> None:
        self._vm.runner = self
        super().__post_init__()

    @property
    def _vm(self) -> "VirtualMachine":
        assert self.machine is not None
        return self.machine

    def _meet_store(self) -> None:
        real = self.store.transaction

        @contextmanager
        def transaction(*, durable: bool = False) -> Iterator[Connection]:
            self._vm.pass_point("transaction_begins")
            self._vm.maybe_lose_store("before")
            with real(durable=durable) as connection:
                yield connection
                self._vm.pass_point("transaction_commits")
                self._vm.maybe_lose_store("within")
            self._vm.pass_point("transaction_committed")
            self._vm.maybe_lose_store("after")

        setattr(self.store, "transaction", transaction)  # noqa: B010 - of this one store

    def _make_health(self) -> Health:
        return VirtualSurroundings(self.session, 0.0, machine=self.machine)

    def _make_pool(self) -> Pool:
        vm = self._vm
        limits = (self.settings.cores, self.settings.usable_memory_gb)
        vm.pool = VirtualPool(*limits, clock=vm.clock, rng=vm.rng, misfortunes=vm.misfortunes)
        return vm.pool

    def begin(self) -> None:
        """Do what a run begins with."""
        self._begin()

    def turn(self) -> RunReport | None:
        """Do one cycle; return the report if the run is over."""
        if self._done():
            return self._finish()
        self.engine.workflow.scheduler.checked = True  # it is built anew by every edit
        self._cycle()
        return None

    def leave(self, error: BaseException) -> None:
        """Do what a run does after an error."""
        self._give_up(error)

    def drop_dead(self) -> None:
        """Let this runner be dead: its connections are gone, and nothing is written on its behalf."""

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("a dead runner wrote to the store")

        def bury(_note: str) -> bool:
            self.store.dispose()
            return True

        for name in ("transaction", "close", "claim"):
            setattr(self.store, name, refuse)
        setattr(self.store, "give_back", bury)  # noqa: B010


@dataclass
class Counts:
    """What was done to the engine."""

    kills: int = 0
    killed_at: dict[str, int] = field(default_factory=dict)
    worker_deaths: int = 0
    steps_run: int = 0
    starts: int = 0
    finished: int = 0
    store_losses: int = 0
    replaced: int = 0


@dataclass
class VirtualMachine:
    """One machine that processes one session, with whatever befalls it."""

    session: Session
    seed: int = 0
    settings: Settings = field(default_factory=quiet_settings)
    misfortunes: Misfortunes = field(default_factory=Misfortunes)
    clock: VirtualClock = field(default_factory=VirtualClock)
    counts: Counts = field(default_factory=Counts)
    runner: VirtualRunner | None = None
    pool: VirtualPool | None = None
    report: RunReport | None = None  # of the last run that came to its end
    kill_in: int | None = None  # the runner dies at the so-manieth point from now

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def pass_point(self, name: str) -> None:
        """Die here if it is time to."""
        if self.kill_in is None or self.runner is None:
            return
        self.kill_in -= 1
        if self.kill_in > 0:
            return
        self.kill_in = None
        self.counts.kills += 1
        self.counts.killed_at[name] = self.counts.killed_at.get(name, 0) + 1
        self.runner.drop_dead()
        raise ProcessDied(name)

    def maybe_lose_store(self, when: str) -> None:
        """Lose the store now, perhaps."""
        if self.misfortunes.store_away and self.rng.random() < self.misfortunes.store_away / 3:
            self.counts.store_losses += 1
            raise StoreUnavailable(f"the store went away {when} a commit")

    # What people do --------------------------------------------------------------------------------------------------------

    def start(self) -> bool:
        """Start a runner from what is in the folder; tell whether it lives."""
        if self.runner is not None:
            return True
        self.session = open_session(self.session.folder)
        return self._build()

    def turn(self, cycles: int = 1) -> None:
        """Let the runner do some cycles; one that lost its store is built anew as `icestream.flow.runner.supervisor` does."""
        for _ in range(cycles):
            if self.runner is None:
                return
            self.report = self._attempt(self.runner.turn)
            if self.report is not None:
                self._count_pool()
                self.counts.finished += 1
                self.runner = None

    def kill(self) -> None:
        """Kill the runner between two cycles."""
        if self.runner is not None:
            self.kill_in = 1
            self._attempt(lambda: self.pass_point("between"))

    def stop(self) -> None:
        """Ask the runner to stop, as SIGTERM does."""
        if self.runner is not None:
            with self._virtual():
                self.runner.stop()

    def ask(self, command: Command, *, author: str = "eva") -> int:
        """Append a command."""
        with self._virtual():
            return ask(open_session(self.session.folder), command, author=author)

    def answer_here(self) -> None:
        """Carry out what was asked while no runner is there."""
        if self.runner is None:
            self.session = open_session(self.session.folder)
            self._attempt(lambda: self._make_runner().answer_commands())
            self.runner = None

    def replace_runner(self) -> None:
        """Let a second runner take the session over from one that hangs, then let the first go on: it must not commit."""
        old = self.runner
        if old is None or self.misfortunes.store_away:
            return
        self.kill_in = None
        claiming.release(old.store.location, old.store.fence)
        self.runner = None
        self.start()
        with self._virtual():
            try:
                old.turn()
            except StaleRunner as error:
                old.leave(error)
                self.counts.replaced += 1
                return
        raise AssertionError("a runner that was replaced committed")

    def run_out(self, *, most_cycles: int = 20_000) -> RunReport:
        """Let a runner run until every stream has closed, however often it has to be built.

        Raises
        ------
        AssertionError
            It did not come to an end.
        """
        self.kill_in = None
        self.report = None
        for _ in range(most_cycles):
            self.start()
            self.turn()
            if self.report is not None and self.report.finished:
                return self.report
        raise AssertionError(f"the session did not come to its end within {most_cycles} cycles")

    # Inside ----------------------------------------------------------------------------------------------------------------

    def _build(self) -> bool:
        self._attempt(lambda: self._make_runner().begin())
        return self.runner is not None

    def _make_runner(self) -> VirtualRunner:
        self.counts.starts += 1
        return VirtualRunner(self.session, self.settings, machine=self)

    def _attempt(self, action: "Callable[[], Any]") -> Any:
        """Do something with the runner; if it dies or loses its store there is none afterwards."""
        self.pool = self.pool if self.runner is not None else None
        try:
            with self._virtual():
                return action()
        except (ProcessDied, StoreUnavailable, OSError) as error:
            with self._virtual():
                self._bury(error)
            return None

    def _bury(self, error: BaseException) -> None:
        runner, self.runner = self.runner, None
        self._count_pool()
        if runner is not None and hasattr(runner, "parts"):
            away, self.misfortunes.store_away = self.misfortunes.store_away, 0.0
            runner.leave(error)
            self.misfortunes.store_away = away
        self.clock.now_s += 1.0

    def _count_pool(self) -> None:
        if self.pool is not None:
            self.counts.worker_deaths += self.pool.deaths
            self.counts.steps_run += self.pool.ran
            self.pool = None

    @contextmanager
    def _virtual(self) -> Iterator[None]:
        fault_points.hooks.append(self.pass_point)
        try:
            with virtual_machine_time(self.clock):
                yield
        finally:
            fault_points.hooks.remove(self.pass_point)
