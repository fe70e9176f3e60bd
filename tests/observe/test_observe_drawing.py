"""Pictures that are drawn when somebody asks: which, by a process that may hang or die, once for all, and kept for a while."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from icestream.io.blocks import from_block
from icestream.io.image import write_mrc
from icestream.io.pyramid import read_pyramid_index
from icestream.observe.drawing.cache import DrawingCache
from icestream.observe.drawing.finding import MEMBERS_IN_A_ROW, find_members, find_micrograph, find_particles
from icestream.observe.drawing.order import Answer, MicrographOrder, MosaicOrder, NotDrawn, NothingToDraw, Task
from icestream.observe.drawing.studio import MOST_WAITING, DrawingProcess, Studio
from icestream.observe.drawing.worker import answer
from icestream.observe.queries import open_view
from web.drawn_session import BOX, HEIGHT, N_PARTICLES, WIDTH, Drawn, write_drawn

SERVING = """
import os, sys, time
from multiprocessing.connection import Connection
from pathlib import Path
from icestream.observe.drawing.order import Answer, Task
connection = Connection(int(sys.argv[-1]))
"""
COUNTING = """
while True:
    task = Task.model_validate_json(connection.recv_bytes())
    with open({log!r}, "a") as log:
        log.write(task.order.key + "\\n")
    time.sleep(0.3)
    Path(task.to).write_text(task.order.key)
    connection.send_bytes(Answer().model_dump_json().encode())
"""
HANGING = "time.sleep(600)"
DYING = "connection.recv_bytes(); os._exit(9)"
LIMITED = """
import sys, time
from multiprocessing.connection import Connection
from pathlib import Path
from icestream.observe.drawing import worker
held_kb = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
worker.MEMORY_BYTES = 1024 * int(held_kb) + (100 << 20)
worker.limit_process()
{patch}
worker.serve(Connection(int(sys.argv[-1])))
"""
IDLE = (
    """
if not os.path.exists({log!r}):
    Path({log!r}).touch()
    sys.exit(0)  # as if nobody had asked for long
"""
    + COUNTING
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    return write_drawn(tmp_path_factory.mktemp("drawn") / "drawn")


@pytest.fixture
def studios(tmp_path: Path) -> Iterator:
    made: list[Studio] = []

    def make(program: str | None = None, **options) -> Studio:
        command = (sys.executable, "-c", SERVING + program.format(log=str(tmp_path / "log"))) if program else None
        process = DrawingProcess(command) if command else DrawingProcess()
        made.append(Studio(DrawingCache(tmp_path / "cache", 10**8), process=process, **({"patience_s": 200} | options)))
        return made[-1]

    yield make
    for studio in made:
        studio.close()


def order_of(key: str) -> MicrographOrder:
    return MicrographOrder(roots={"session": "/nowhere"}, key=key, image="session:a.mrc")


def picture_sizes(path: Path) -> tuple[int, int]:
    index = read_pyramid_index(path)
    return index.height_px, index.width_px


def picture(path: Path) -> np.ndarray:
    return imagecodecs.jpeg8_decode(path.read_bytes())


def test_an_image_is_drawn_by_a_process_of_its_own(drawn, studios):
    studio = studios()
    with open_view(drawn.paper.session) as view:
        order = find_micrograph(view, drawn.micrographs[0])
    path = studio.draw(order)
    pid = studio.process.pid
    assert pid not in (None, os.getpid())
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0) or os.getpriority(os.PRIO_PROCESS, pid) == 19
    assert studio.draw(order) == path
    with open_view(drawn.paper.session) as view:
        studio.draw(find_particles(view, drawn.particles[0], 0))
    assert studio.process.pid == pid


@pytest.mark.parametrize("place", [0, 2])
def test_particles_of_a_stack_and_of_a_virtual_one_are_drawn(drawn, tmp_path, place):
    with open_view(drawn.paper.session) as view:
        order = find_particles(view, drawn.particles[place], 0)
        with pytest.raises(NothingToDraw, match="page 1 has no particles: there are 12"):
            find_particles(view, drawn.particles[place], 1)
    assert answer(Task(order=order, to=str(tmp_path / "p.jpg"), limit_s=10)) == Answer()
    assert picture(tmp_path / "p.jpg").shape == (2 * BOX + 2, 10 * (BOX + 2) - 2)


def test_the_newest_members_of_a_class_come_first_whatever_their_stack(drawn, tmp_path):
    with open_view(drawn.paper.session) as view:
        order = find_members(view, "classes", 2)
        assert [len(order_rows(one)) for one in order.parts] == [3, 2, 1]
        assert [one.key for one in order.parts] == drawn.particles[::-1]
        with pytest.raises(NothingToDraw, match="no images are there of the newest members of class 7"):
            find_members(view, "classes", 7)
        with pytest.raises(NothingToDraw, match="no step of this session that assigns"):
            find_members(view, "align", 2)
    assert answer(Task(order=order, to=str(tmp_path / "p.jpg"), limit_s=10)) == Answer()
    assert picture(tmp_path / "p.jpg").shape == (BOX, 6 * (BOX + 2) - 2)
    assert order.in_a_row == MEMBERS_IN_A_ROW


def order_rows(part) -> np.ndarray:
    return from_block(part.rows)


def test_what_is_no_image_or_no_particle_is_not_drawn(drawn):
    with open_view(drawn.paper.session) as view:
        for key in ("nothing", "", "../../etc/passwd", drawn.particles[0]):
            with pytest.raises(NothingToDraw):
                find_micrograph(view, key)
        for key in ("nothing", drawn.micrographs[0]):
            with pytest.raises(NothingToDraw):
                find_particles(view, key, 0)


def test_no_file_outside_of_the_session_is_drawn_and_no_path_is_told(tmp_path):
    inside, outside = tmp_path / "session", tmp_path / "other"
    for folder in (inside, outside):
        folder.mkdir()
        write_mrc(folder / "a.mrc", np.zeros((8, 8), np.float32), pixel_size_ang=1.0, remember=False)
    (inside / "link.mrc").symlink_to(outside / "a.mrc")
    (inside / "text.mrc").write_text("x" * 2000)
    huge = bytearray((inside / "a.mrc").read_bytes())
    huge[0:8] = (20_000).to_bytes(4, "little") * 2
    (inside / "huge.mrc").write_bytes(huge)
    with (inside / "huge.mrc").open("r+b") as handle:
        handle.truncate(1024 + 4 * 20_000**2)
    for ref, why in (
        ("session:link.mrc", "leads out"), ("session:../other/a.mrc", "leads out"), ("other:a.mrc", "no root"),
        ("session:text.mrc", "not an MRC file"), ("session:gone.mrc", "is not there"), ("session:huge.mrc", "million"),
    ):  # fmt: skip
        said = answer(
            Task(order=order_of("k").model_copy(update={"roots": {"session": str(inside)}, "image": ref}), to="/", limit_s=9)
        )
        assert why in (said.trouble or ""), said
        assert said.missing is (ref in ("session:gone.mrc", "other:a.mrc"))
        assert str(outside) not in said.trouble
        assert ref == "session:../other/a.mrc" or str(inside) not in said.trouble


def test_a_drawing_that_takes_too_much_memory_is_given_up(drawn, studios, tmp_path):
    with open_view(drawn.paper.session) as view:
        small = find_micrograph(view, drawn.micrographs[0])
    path = tmp_path / "large.mrc"
    write_mrc(path, np.zeros((8, 8), np.float32), pixel_size_ang=1.0, remember=False)
    with path.open("r+b") as handle:
        handle.write((12_000).to_bytes(4, "little") * 2)
        handle.truncate(1024 + 4 * 12_000**2)  # 576 MB, none of which is on the disk
    large = small.model_copy(update={"roots": {"session": str(tmp_path)}, "image": "session:large.mrc"})
    studio = studios()
    studio.process.command = (sys.executable, "-c", LIMITED.format(patch=""))
    with pytest.raises(NotDrawn, match="more memory than a drawing may have"):
        studio.draw(large)
    pid = studio.process.pid
    assert picture_sizes(studio.draw(small)) == (HEIGHT, WIDTH)
    assert studio.process.pid == pid  # it has survived


def test_a_process_whose_server_has_gone_ends_itself_when_a_drawing_takes_too_long(drawn, tmp_path):
    with open_view(drawn.paper.session) as view:
        order = find_micrograph(view, drawn.micrographs[0])
    process = DrawingProcess((sys.executable, "-c", LIMITED.format(patch="worker.draw = lambda order, to: time.sleep(600)")))
    try:
        with pytest.raises(NotDrawn, match="has died"):  # of the alarm: nobody else ends it for ten minutes
            process.ask(Task(order=order, to=str(tmp_path / "a"), limit_s=1), 600)
    finally:
        process.close()


def test_two_who_ask_for_the_same_get_one_drawing(studios, tmp_path):
    studio = studios(COUNTING)
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(studio.draw, [order_of("a")] * 4))
    assert len(paths) == 1
    assert paths.pop().read_text() == "a"
    assert (tmp_path / "log").read_text() == "a\n"


def test_one_that_hangs_is_killed_and_replaced(studios):
    studio = studios(HANGING, limit_s=0.5)
    with pytest.raises(NotDrawn, match=r"longer than 0\.5 s"):
        studio.draw(order_of("a"))
    assert studio.process.pid is None
    began = time.monotonic()
    with pytest.raises(NotDrawn, match=r"longer than 0\.5 s"):  # it is remembered
        studio.draw(order_of("a"))
    assert time.monotonic() - began < 0.5
    studio.process.command = (sys.executable, "-c", SERVING + COUNTING.format(log=os.devnull))
    studio.limit_s = 30
    assert studio.draw(order_of("b")).read_text() == "b"


def test_one_that_dies_is_replaced_and_what_killed_it_is_not_tried_again_at_once(studios):
    studio = studios(DYING)
    with pytest.raises(NotDrawn, match="has died"):
        studio.draw(order_of("a"))
    studio.process.command = (sys.executable, "-c", SERVING + COUNTING.format(log=os.devnull))
    with pytest.raises(NotDrawn, match="has died"):
        studio.draw(order_of("a"))
    assert studio.draw(order_of("b")).read_text() == "b"


def test_one_that_ended_because_nobody_asked_is_started_again(studios):
    assert studios(IDLE).draw(order_of("a")).read_text() == "a"


def test_only_so_many_wait(studios):
    studio = studios(HANGING, limit_s=200)
    waiting = [threading.Thread(target=_try, args=(studio, f"{n}"), daemon=True) for n in range(MOST_WAITING)]
    for thread in waiting:
        thread.start()
    while studio.waiting < MOST_WAITING:
        time.sleep(0.01)
    with pytest.raises(NotDrawn, match="too much is being drawn"):
        studio.draw(order_of("more"))
    with pytest.raises(NotDrawn, match="too much is being drawn"):
        studio.draw(order_of("0"))


def _try(studio: Studio, key: str) -> None:
    try:
        studio.draw(order_of(key))
    except NotDrawn:
        return


def test_who_is_out_of_patience_finds_the_drawing_later(studios):
    studio = studios(COUNTING, patience_s=0.01)
    with pytest.raises(NotDrawn, match="ask again"):
        studio.draw(order_of("a"))
    studio.patience_s = 30
    assert studio.draw(order_of("a")).read_text() == "a"


def test_the_least_recently_seen_drawing_leaves(tmp_path):
    cache = DrawingCache(tmp_path / "cache", 250)
    for number, name in enumerate("abc"):
        if number == 2:
            os.utime(cache.folder / "a", (10, 10))
            os.utime(cache.folder / "b", (5, 5))
        with cache.keep(name) as target:
            target.write_bytes(bytes(100))
    assert sorted(one.name for one in cache.folder.iterdir()) == ["a", "c"]
    assert cache.find("b") is None
    assert cache.find("a") is not None
    os.utime(cache.folder / "c", (1, 1))
    with cache.keep("d") as target:
        target.write_bytes(bytes(1000))  # larger than all may be: it stays until the next one comes
    assert [one.name for one in cache.folder.iterdir()] == ["d"]


def test_an_empty_drawing_is_dropped(tmp_path):
    cache = DrawingCache(tmp_path / "cache", 250)
    with cache.keep("a") as target:
        target.touch()
    assert cache.find("a") is None
    assert list(cache.folder.iterdir()) == []


def test_a_drawing_that_fails_leaves_nothing(tmp_path):
    cache = DrawingCache(tmp_path / "cache", 250)
    with pytest.raises(ValueError, match="odd"), cache.keep("a") as target:
        target.write_bytes(b"half")
        raise ValueError("odd")
    assert list(cache.folder.iterdir()) == []


def test_an_order_is_called_by_its_content(drawn):
    with open_view(drawn.paper.session) as view:
        first, again = (find_particles(view, drawn.particles[0], 0) for _ in range(2))
        other = find_particles(view, drawn.particles[1], 0)
    assert first.name == again.name != other.name
    assert MosaicOrder.model_validate_json(first.model_dump_json()) == first
    assert len(order_rows(first.parts[0])) == N_PARTICLES
