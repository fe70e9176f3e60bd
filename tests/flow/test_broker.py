"""Many runners on one machine, in virtual time: fair shares, lending, and nobody starves."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from icestream.errors import LedgerBusy, LedgerError
from icestream.flow.resources.broker import RETRY_S, Broker
from icestream.flow.resources.fairness import Tokens
from icestream.flow.resources.ledger import Entry, Slots
from icestream.flow.runner.ready_queue import ReadyQueue
from icestream.flow.runner.tasks import Task
from icestream.flow.storage.revisions import Revision
from icestream.flow.workflow.demands import Demand

STEP_S = 0.02
POLL_S = 0.5


@dataclass
class Machine:
    """A ledger in memory, and a clock that only the test moves."""

    capacity: Tokens
    gpus: dict[int, float] = field(default_factory=dict)
    slots: dict[int, Entry] = field(default_factory=dict)
    now_s: float = 0.0


@dataclass
class MemoryTable:
    machine: Machine
    slot: int
    damaged: list[int] = field(default_factory=list)

    def exchange(self, change: Callable[[int, Slots], Entry]) -> None:
        others = {slot: entry for slot, entry in self.machine.slots.items() if slot != self.slot}
        self.machine.slots[self.slot] = change(self.slot, others)

    def close(self) -> None:
        self.machine.slots.pop(self.slot, None)


@dataclass
class FakeRunner:
    """A runner that always has ``backlog`` tasks waiting of each of its kinds, from ``begins_s`` to ``ends_s``."""

    machine: Machine
    slot: int
    kinds: list[tuple[Demand, float]]
    begins_s: float = 0.0
    ends_s: float = 1e9
    backlog: int = 20
    cores: int = 0

    def __post_init__(self) -> None:
        capacity = self.machine.capacity
        broker = Broker(MemoryTable(self.machine, self.slot), capacity, clock=lambda: self.machine.now_s)
        cores = self.cores or int(capacity["cores"])
        self.queue = ReadyQueue(cores, capacity["memory_gb"], False, self.machine.gpus, broker)
        self.waiting = [0 for _ in self.kinds]
        self.at_work: list[tuple[float, Task]] = []
        self.core_s = 0.0
        self.done: dict[str, int] = {}
        self.next_look_s = 0.0
        self.started: list[tuple[float, str]] = []

    def live(self) -> None:
        now = self.machine.now_s
        ended = [entry for entry in self.at_work if entry[0] <= now]
        self.at_work = [entry for entry in self.at_work if entry[0] > now]
        for _, task in ended:
            self.queue.give_back(task)
            self.done[task.step] = self.done.get(task.step, 0) + 1
        if ended or now >= self.next_look_s:
            self._round()
        self.core_s += STEP_S * self.queue.running.get("cores", 0.0)

    def _round(self) -> None:
        now = self.machine.now_s
        if self.begins_s <= now < self.ends_s:
            for index, (request, _) in enumerate(self.kinds):
                for _ in range(self.backlog - self.waiting[index]):
                    task = Task(f"kind{index}", "u", "k", {}, {}, request.cores, request.memory_gb, REVISION, asks=request)
                    self.queue.put(task, depth=index)
                self.waiting[index] = self.backlog
        self.queue.begin()
        while now < self.ends_s and (taken := self.queue.take()) is not None:
            index = int(taken.step.removeprefix("kind"))
            self.waiting[index] -= 1
            self.at_work.append((now + self.kinds[index][1], taken))
            self.started.append((now, taken.step))
        self.queue.end(leaving=now >= self.ends_s)
        broker = self.queue.broker
        self.next_look_s = now + (RETRY_S if broker is not None and broker.refused else POLL_S)


REVISION = Revision(1, "s", 1, "s", 1, 0, {})


def simulate(machine: Machine, runners: list[FakeRunner], until_s: float) -> None:
    while machine.now_s < until_s:
        machine.now_s += STEP_S
        for runner in runners:
            runner.live()
        held = sum(runner.queue.running.get("memory_gb", 0.0) for runner in runners)
        assert held <= machine.capacity["memory_gb"] + 1e-6, "memory was promised twice"
        for index, size_gb in machine.gpus.items():
            on_gpu = sum(runner.queue.running.get(f"gpu{index}", 0.0) for runner in runners)
            assert on_gpu <= size_gb + 1e-6, "GPU memory was promised twice"


def make_machine(cores: int, memory_gb: float, **gpus: float) -> Machine:
    devices = {int(name.removeprefix("gpu")): size_gb for name, size_gb in gpus.items()}
    capacity = {"cores": float(cores), "memory_gb": memory_gb, "gpu_gb": sum(gpus.values()), **gpus}
    return Machine(capacity, devices)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_runners_with_work_get_equal_parts(count: int) -> None:
    machine = make_machine(8, 64)
    runners = [FakeRunner(machine, slot, [(Demand(1, 1.0), 0.3 + 0.07 * slot)]) for slot in range(count)]
    simulate(machine, runners, 60.0)
    used = [runner.core_s for runner in runners]
    assert sum(used) > 0.85 * 8 * 60, "cores lay idle"
    assert max(used) < 1.25 * min(used), used


def test_idle_cores_are_lent_and_come_back_as_tasks_end() -> None:
    machine = make_machine(8, 64)
    first = FakeRunner(machine, 0, [(Demand(1, 1.0), 1.0)])
    second = FakeRunner(machine, 1, [(Demand(1, 1.0), 1.0)], begins_s=20.0, ends_s=40.0)
    simulate(machine, [first, second], 19.9)
    assert len(first.at_work) == 8
    simulate(machine, [first, second], 23.0)
    assert [len(runner.at_work) for runner in (first, second)] == [4, 4]
    simulate(machine, [first, second], 44.0)
    assert [len(runner.at_work) for runner in (first, second)] == [8, 0]


def test_a_newcomer_starts_at_once_although_all_cores_are_lent_for_long() -> None:
    machine = make_machine(4, 64)
    long = FakeRunner(machine, 0, [(Demand(1, 1.0), 500.0)])
    newcomer = FakeRunner(machine, 1, [(Demand(1, 1.0), 1.0)], begins_s=10.0)
    simulate(machine, [long, newcomer], 12.0)
    assert newcomer.started
    assert len(long.at_work) == 4


def test_a_task_as_wide_as_the_machine_gets_its_turn_and_its_fair_part() -> None:
    machine = make_machine(4, 64)
    wide = FakeRunner(machine, 0, [(Demand(4, 4.0), 1.0)])
    narrow = FakeRunner(machine, 1, [(Demand(1, 1.0), 1.0)])
    simulate(machine, [wide, narrow], 120.0)
    assert wide.core_s > 0.3 * 4 * 120
    assert narrow.core_s > 0.3 * 4 * 120


def test_a_task_that_needs_nearly_all_memory_is_not_starved_by_small_ones() -> None:
    machine = make_machine(8, 64)
    small = [FakeRunner(machine, slot, [(Demand(1, 8.0), 0.5 + 0.1 * slot)]) for slot in range(3)]
    big = FakeRunner(machine, 3, [(Demand(1, 60.0), 1.0)], begins_s=5.0)
    simulate(machine, [*small, big], 120.0)
    assert big.done["kind0"] >= 10
    assert all(runner.done["kind0"] > 60 for runner in small)


def test_more_runners_than_cores_all_go_on() -> None:
    machine = make_machine(2, 64)
    runners = [FakeRunner(machine, slot, [(Demand(1, 1.0), 0.4)]) for slot in range(7)]
    simulate(machine, runners, 30.0)
    done = [runner.done.get("kind0", 0) for runner in runners]
    assert min(done) > 0.5 * max(done) > 0


def test_two_runners_take_turns_on_one_gpu_while_their_other_steps_go_on() -> None:
    machine = make_machine(8, 64, gpu0=24.0)
    kinds = [(Demand(1, 1.0), 0.3), (Demand(1, 2.0, gpu_gb=20.0), 1.0)]
    runners = [FakeRunner(machine, slot, kinds) for slot in range(2)]
    simulate(machine, runners, 120.0)
    on_gpu = [runner.done["kind1"] for runner in runners]
    assert sum(on_gpu) > 90
    assert max(on_gpu) < 1.5 * min(on_gpu), on_gpu
    assert all(runner.done["kind0"] > 400 for runner in runners)


def test_small_tasks_share_a_gpu_and_the_one_with_most_room_is_chosen() -> None:
    machine = make_machine(8, 64, gpu0=10.0, gpu1=24.0)
    runner = FakeRunner(machine, 0, [(Demand(1, 1.0, gpu_gb=6.0), 100.0)])
    other = FakeRunner(machine, 1, [(Demand(1, 1.0, gpu_gb=6.0, gpus=(0,)), 100.0)], begins_s=1.0)
    simulate(machine, [runner, other], 3.0)
    assert [task.gpu for _, task in runner.at_work] == [1, 1, 1, 0, 1]
    assert other.at_work == []


def test_the_device_that_others_use_least_is_chosen() -> None:
    machine = make_machine(8, 64, gpu0=24.0, gpu1=24.0)
    first = FakeRunner(machine, 0, [(Demand(1, 1.0, gpu_gb=20.0), 100.0)], ends_s=0.1, backlog=1)
    second = FakeRunner(machine, 1, [(Demand(1, 1.0, gpu_gb=2.0), 100.0)], begins_s=1.0, backlog=1, cores=1)
    simulate(machine, [first, second], 3.0)
    assert [task.gpu for _, task in first.at_work] != [task.gpu for _, task in second.at_work]


def test_a_task_bigger_than_the_machine_runs_alone() -> None:
    machine = make_machine(4, 16)
    huge = FakeRunner(machine, 0, [(Demand(64, 900.0), 1.0)])
    other = FakeRunner(machine, 1, [(Demand(1, 1.0), 0.5)])
    simulate(machine, [huge, other], 60.0)
    assert huge.done["kind0"] >= 10
    assert other.done["kind0"] >= 10


def test_no_more_calls_of_a_step_run_than_it_allows() -> None:
    machine = make_machine(8, 64)
    runner = FakeRunner(machine, 0, [(Demand(1, 1.0, max_parallel=2), 0.5), (Demand(1, 1.0), 0.5)])
    simulate(machine, [runner], 5.0)
    steps = [task.step for _, task in runner.at_work]
    assert (steps.count("kind0"), steps.count("kind1")) <= (2, 8)
    other = FakeRunner(make_machine(8, 64), 0, [(Demand(1, 1.0, max_parallel=2), 0.5)])
    simulate(other.machine, [other], 5.0)
    assert len(other.at_work) == 2


def test_what_ran_out_of_memory_runs_alone_in_its_runner() -> None:
    queue = ReadyQueue(4, 64.0)
    tasks = [Task("s", str(number), "k", {}, {}, 1, 1.0, REVISION) for number in range(3)]
    whole = Task("s", "w", "k", {}, {}, 2, 1.0, REVISION, asks=Demand(2, 1.0, whole=True))
    queue.put(tasks[0], depth=0)
    assert queue.take() is tasks[0]
    queue.put(whole, depth=1)
    assert queue.take() is None
    queue.give_back(tasks[0])
    queue.put(tasks[1], depth=2)
    assert [queue.take(), queue.take()] == [tasks[1], None]
    queue.give_back(tasks[1])
    assert queue.take() is whole
    assert (whole.cores, queue.running["memory_gb"]) == (1, 64.0)
    queue.put(tasks[2], depth=2)
    assert queue.take() is None
    queue.give_back(whole)
    assert queue.take() is tasks[2]


def test_a_better_task_without_a_gpu_to_run_on_does_not_hold_the_cores() -> None:
    queue = ReadyQueue(4, 64.0, gpus={0: 24.0})
    on_gpu = [Task("g", str(number), "k", {}, {}, 1, 1.0, REVISION, asks=Demand(1, 1.0, 20.0)) for number in range(2)]
    for task in on_gpu:
        queue.put(task, depth=9)
    assert queue.take() is on_gpu[0]
    for number in range(40):
        queue.put(Task("c", str(number), "k", {}, {}, 1, 1.0, REVISION), depth=0)
    for _ in range(30):
        running = [queue.take() for _ in range(3)]
        assert all(task is not None and task.step == "c" for task in running)
        for taken in running:
            assert taken is not None
            queue.give_back(taken)
            queue.put(taken, depth=0)


class BrokenTable:
    def __init__(self, error: LedgerError | None = None) -> None:
        self.damaged: list[int] = []
        self.broken = True
        self.error = error or LedgerError("ledger: is gone")

    def exchange(self, change: Callable[[int, Slots], Entry]) -> None:
        if self.broken:
            raise self.error
        change(0, {})

    def close(self) -> None:
        return


def test_a_runner_goes_on_without_a_ledger_and_says_so_once() -> None:
    table, now = BrokenTable(), [0.0]
    broker = Broker(table, {"cores": 4.0, "memory_gb": 8.0}, clock=lambda: now[0])
    queue = ReadyQueue(4, 8.0, broker=broker)
    for number in range(6):
        queue.put(Task("s", str(number), "k", {}, {}, 1, 1.0, REVISION), depth=0)
    for _ in range(3):
        queue.begin()
        while queue.take() is not None:
            pass
        queue.end()
        now[0] += 15.0
    assert queue.running["cores"] == 4
    assert [level for level, _ in broker.notices] == ["warning"]
    assert "keeps to its own limits" in broker.notices[0][1]
    table.broken = False
    queue.end()
    assert [level for level, _ in broker.notices] == ["warning", "info"]


def test_a_ledger_that_is_locked_for_a_moment_is_asked_again() -> None:
    table, now = BrokenTable(LedgerBusy("ledger: another process has kept it locked")), [0.0]
    broker = Broker(table, {"cores": 4.0, "memory_gb": 8.0}, clock=lambda: now[0])
    queue = ReadyQueue(4, 8.0, broker=broker)
    queue.put(Task("s", "u", "k", {}, {}, 1, 1.0, REVISION), depth=0)
    queue.begin()
    assert queue.take() is None
    assert broker.refused
    table.broken = False
    now[0] += RETRY_S
    queue.begin()
    assert queue.take() is not None
    assert broker.notices == []


def test_a_ledger_that_stays_locked_is_done_without() -> None:
    table, now = BrokenTable(LedgerBusy("ledger: another process has kept it locked")), [0.0]
    broker = Broker(table, {"cores": 4.0, "memory_gb": 8.0}, clock=lambda: now[0])
    queue = ReadyQueue(4, 8.0, broker=broker)
    queue.put(Task("s", "u", "k", {}, {}, 1, 1.0, REVISION), depth=0)
    for _ in range(9):
        queue.begin()
        if queue.take() is not None:
            break
        now[0] += RETRY_S
    assert queue.running["cores"] == 1
    assert [level for level, _ in broker.notices] == ["warning"]
