"""Events: one look for all who watch, no change missed, and nobody held up by a slow browser."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from starlette.concurrency import run_in_threadpool

from icestream.errors import StoreUnavailable
from icestream.flow.commands.requests import Pause, ask
from icestream.flow.storage.session import open_session
from icestream.flow.storage.store import Store
from icestream.observe.activity import Pulse
from icestream.web import events
from icestream.web import live as live_module
from icestream.web.events import EventStream, Told, Watchers
from icestream.web.live import ANSWERS_OF_EACH, KEPT_S, MOST_ANSWERS, MOST_S, MOST_SESSIONS, SHARE, Live
from icestream.web.places import find_places
from toys.session import make_toy_session, toy_steps
from web.parts import Clock


class Browser:
    """Takes what a stream sends; it leaves when a test says so."""

    def __init__(self, *, takes: int = 1000) -> None:
        self.said: list[str] = []
        self.left = asyncio.Event()
        self.takes = takes
        self.heard = asyncio.Condition()
        self.task: asyncio.Task[None] | None = None

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if len(self.said) >= self.takes:
            await asyncio.Event().wait()
        async with self.heard:
            self.said.append(message.get("body", b"").decode())
            self.heard.notify_all()

    async def hear(self, wanted: Callable[[list[dict]], bool]) -> list[dict]:
        async with self.heard:
            await asyncio.wait_for(self.heard.wait_for(lambda: wanted(self.told)), 30)
            return self.told

    @property
    def told(self) -> list[dict]:
        return [json.loads(text.partition("data: ")[2]) for text in self.said if "data: " in text]


def stream(watchers: Watchers, browser: Browser, look: Callable[[], Told], welcome: Callable[[], bool] = lambda: True) -> Any:
    async def still_welcome() -> bool:
        return welcome()

    answer = EventStream(watchers, watchers.watch("a", look), "anna", still_welcome)
    return asyncio.create_task(answer({"type": "http"}, browser.receive, browser.send))


async def _welcome() -> bool:
    return True


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(events, "LOOK_S", 0.01)


def test_all_browsers_hear_of_the_newest_state_from_one_look_each_time():
    async def play() -> None:
        state, looks = {"seq": 1}, 0

        def look() -> Told:
            nonlocal looks
            looks += 1
            return dict(state)

        watchers, first, second = Watchers(), Browser(), Browser()
        tasks = [stream(watchers, browser, look) for browser in (first, second)]
        for browser in (first, second):
            assert (await browser.hear(lambda told: len(told) == 1))[-1] == {"seq": 1}
        assert watchers.n_streams == 2
        state["seq"] = 7
        for browser in (first, second):
            assert (await browser.hear(lambda told: len(told) == 2))[-1] == {"seq": 7}
        third = Browser()
        tasks.append(stream(watchers, third, look))
        assert await third.hear(bool) == [{"seq": 7}]
        for browser in (first, second, third):
            browser.left.set()
        await asyncio.gather(*tasks)
        assert watchers.n_streams == 0
        quiet = looks
        await asyncio.sleep(0.1)
        assert looks <= quiet + 1  # nobody watches, so nobody looks

    asyncio.run(play())


def test_what_cannot_be_read_is_told_and_looked_at_again():
    async def play() -> None:
        trouble = [StoreUnavailable("the disk is away")]

        def look() -> Told:
            if trouble:
                raise trouble.pop()
            return {"seq": 3}

        watchers, browser = Watchers(), Browser()
        task = stream(watchers, browser, look)
        assert await browser.hear(lambda told: len(told) == 2) == [{"trouble": "the disk is away"}, {"seq": 3}]
        browser.left.set()
        await task

    asyncio.run(play())


def test_a_browser_that_takes_nothing_is_let_go(monkeypatch):
    monkeypatch.setattr(events, "SLOWEST_S", 0.05)

    async def play() -> None:
        watchers, slow, quick, seq = Watchers(), Browser(takes=2), Browser(), iter(range(10_000))
        tasks = [stream(watchers, browser, lambda: {"seq": next(seq)}) for browser in (slow, quick)]
        await asyncio.wait_for(tasks[0], 30)
        assert watchers.n_streams == 1
        await quick.hear(lambda told: len(told) > 3)
        quick.left.set()
        await tasks[1]

    asyncio.run(play())


def test_a_stream_says_that_it_lives_and_ends_when_its_reader_loses_access(monkeypatch):
    monkeypatch.setattr(events, "QUIET_S", 0.02)

    async def play() -> None:
        welcome = [True] * 4
        watchers, browser = Watchers(), Browser()
        await asyncio.wait_for(stream(watchers, browser, lambda: {"seq": 1}, lambda: bool(welcome) and welcome.pop()), 30)
        assert browser.said.count(": quiet\n\n") >= 1

    asyncio.run(play())


def test_there_are_only_so_many_streams():
    assert not Watchers(Counter(a=events.MOST_STREAMS - 1)).full("b")
    assert Watchers(Counter(a=events.MOST_STREAMS)).full("b")


def test_nobody_takes_all_streams():
    watchers = Watchers(Counter(a=events.MOST_OF_ONE, b=events.MOST_OF_ONE - 1))
    assert [watchers.full(who) for who in "abc"] == [True, False, False]


def test_who_is_not_welcome_any_more_does_not_hear_what_has_just_happened():
    async def play() -> None:
        state, welcome, browser = {"seq": 1}, [True], Browser()
        task = stream(Watchers(), browser, lambda: dict(state), lambda: welcome[0])
        await browser.hear(bool)
        welcome[0] = False
        state["seq"] = 2
        await asyncio.wait_for(task, 30)
        assert browser.told == [{"seq": 1}]

    asyncio.run(play())


def test_the_pulse_differs_after_every_commit(tmp_path):
    session = make_toy_session(tmp_path, toy_steps(2), numbers=range(2))
    live = Live(find_places(session.folder))
    seen = [live.pulse("session")]
    assert seen == [Pulse()]
    store = Store(open_session(session.folder).store_path)
    store.claim()
    seen.append(live.pulse("session"))
    ask(session, Pause(), author="anna")
    seen.append(live.pulse("session"))
    store.close("done")
    seen.append(live.pulse("session"))
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(("wall_s", "cpu_s"), [(0.1, 0.1), (0.1, 0.0), (0.4, 0.0)])
def test_an_answer_stands_while_nothing_changes_and_for_a_share_of_what_it_cost(tmp_path, wall_s, cpu_s):
    session = make_toy_session(tmp_path, toy_steps(2), numbers=range(2))
    clock, cpu_clock, reads = Clock(), Clock(), []
    live = Live(find_places(session.folder), clock, cpu_clock)

    def read(_view: object) -> int:
        clock.now += wall_s
        cpu_clock.now += cpu_s
        reads.append(1)
        return len(reads)

    def again() -> int:
        return live.read("session", "x", read)[0]

    assert [again(), again()] == [1, 1]
    Store(session.store_path).claim()
    stands_s = max(wall_s, SHARE * cpu_s)
    clock.now += stands_s - 0.01
    assert again() == 1  # it changed, but it was read only a moment ago
    clock.now += 0.02
    assert [again(), again()] == [2, 2]
    clock.now += max(KEPT_S, MOST_S) + 0.1
    assert again() == 3
    assert live.read("session", "y", read)[0] == 4
    live.forget("session")
    assert again() == 5


def test_nobody_waits_for_an_answer_that_another_is_reading_again(tmp_path, monkeypatch):
    session = make_toy_session(tmp_path, toy_steps(2), numbers=range(2))
    clock, reading, go = Clock(), threading.Event(), threading.Event()
    live = Live(find_places(session.folder), clock)
    assert live.read("session", "x", lambda _: "first")[0] == "first"
    clock.now += KEPT_S + 1

    def slow(_view: object) -> str:
        reading.set()
        assert go.wait(timeout=60)
        return "second"

    reader = threading.Thread(target=live.read, args=("session", "x", slow))
    reader.start()
    assert reading.wait(timeout=60)
    assert live.read("session", "x", slow)[0] == "first"  # at once, although a slow store is being read
    monkeypatch.setattr(live_module, "PATIENCE_S", 0.05)
    live.forget("session")
    held = live._answer("session", "y")  # noqa: SLF001 - another is reading it for the first time
    with held.lock, pytest.raises(StoreUnavailable, match="try again"):
        live.read("session", "y", slow)
    go.set()
    reader.join(timeout=60)
    assert live.read("session", "x", lambda _: "third")[0] == "third"


def test_answers_of_many_sessions_are_kept_whoever_asks_one_for_much(tmp_path):
    live = Live(find_places(tmp_path))
    names = [str(number) for number in range(300)]
    kept = {(name, what): live._answer(name, what) for name in names for what in ("line", "metrics")}  # noqa: SLF001
    for number in range(3000):
        live._answer("7", f"exposures {number}")  # noqa: SLF001
    others = {key: answer for key, answer in kept.items() if key[0] != "7"}
    assert [key for key, answer in others.items() if live._answer(*key) is not answer] == []  # noqa: SLF001
    assert sum(map(len, live._answers.values())) <= MOST_ANSWERS + ANSWERS_OF_EACH * len(names)  # noqa: SLF001
    for number in range(MOST_SESSIONS + 10):
        live._answer(f"new {number}", "line")  # noqa: SLF001
    assert len(live._answers) == MOST_SESSIONS  # noqa: SLF001


def test_looks_for_events_have_threads_of_their_own():
    async def play() -> None:
        go = threading.Event()

        def slow() -> Told:
            go.wait(timeout=60)
            return {"seq": 1}

        watchers, browsers = Watchers(), [Browser() for _ in range(45)]  # more than there are threads for requests
        for number, browser in enumerate(browsers):
            answer = EventStream(watchers, watchers.watch(str(number), slow), "anna", _welcome)
            browser.task = asyncio.create_task(answer({"type": "http"}, browser.receive, browser.send))
        while watchers.n_streams < len(browsers):
            await asyncio.sleep(0)
        assert await asyncio.wait_for(run_in_threadpool(lambda: "still here"), 30) == "still here"
        assert events._looking().borrowed_tokens <= events.LOOKING_AT_ONCE  # noqa: SLF001
        go.set()
        for browser in browsers:
            await browser.hear(lambda told: told == [{"seq": 1}])
            browser.left.set()
            assert browser.task is not None
            await browser.task

    asyncio.run(play())
