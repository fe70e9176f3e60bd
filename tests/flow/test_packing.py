"""Taking a session elsewhere: a copy that is made while it runs, and raw data that are in another place."""

import json
import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from sqlalchemy import insert, update
from typer.testing import CliRunner, Result

from icestream.cli import app
from icestream.errors import SessionBusy, SessionError
from icestream.files import SESSION_ALARMS
from icestream.flow import Arrival, Context, Params, Pulse, SourceContext, Watch, step
from icestream.flow.declaration.source import SeenFile
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import packing, schema
from icestream.flow.storage.database import engine_for
from icestream.flow.storage.packing import pack_session
from icestream.flow.storage.relinking import relink_root
from icestream.flow.storage.session import Session, dump_document, open_session
from icestream.flow.storage.store import Store
from icestream.observe.queries import open_view
from icestream.records import FileRef, Record
from icestream.settings import Settings
from toys.session import arrive, make_toy_session, outcomes_of, read_rows, replay_log, results_of, toy_steps

if sys.version_info >= (3, 14):
    import tarfile
else:
    from backports.zstd import tarfile

if TYPE_CHECKING:
    from toys.places import Place

HERE = __name__


class RawNumber(Record):
    """A file that holds a number."""

    stored_name: ClassVar[str] = "test.RawNumber"

    file: FileRef


class Picture(Record):
    """What was made of it."""

    stored_name: ClassVar[str] = "test.Picture"

    value: int
    image: FileRef
    preview: FileRef


class StopAfter(Params):
    """When to stop."""

    count: int


@step.source("packing_raw_numbers", version=1, output=RawNumber)
def read_folder(params: StopAfter, ctx: SourceContext) -> Watch:
    """Take the files of the root ``numbers``, as an import does."""
    taken: set[str] = set()
    while len(taken) < params.count and not ctx.stopping():
        for path in sorted(Path(ctx.path("numbers:.")).iterdir()):
            known = path.stat()
            if path.name not in taken:
                taken.add(path.name)
                file = SeenFile(f"numbers:{path.name}", known.st_size, known.st_mtime_ns)
                identity = f"{path.name}:{known.st_size}"
                yield Arrival(identity=identity, name=path.stem, record=RawNumber(file=file.ref), file=file)
        yield Pulse("waiting")
        ctx.wait(0.02)
    return "all came" if len(taken) >= params.count else "stopping"


@step.map("packing_paint", version=1, memory_gb=0.1)
def paint(raw: RawNumber, ctx: Context) -> Picture:
    """Read the raw file, write an image and a preview."""
    value = int(ctx.path(raw.file).read_text())
    with ctx.publish(".mrc") as image:
        image.path.write_text("image" * 100)
    with ctx.publish(".png") as preview:
        preview.path.write_text("preview")
    return Picture(value=value, image=image.ref, preview=preview.ref)


@pytest.fixture(autouse=True)
def workers_find_this_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def raw_session(folder: Path, count: int, *, stop_after: int | None = None) -> Session:
    """Make a session whose raw files hold numbers."""
    (folder / "numbers").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / "numbers" / f"{number}.txt").write_text(str(number))
    steps = {
        "raw": {"use": f"{HERE}:read_folder", "params": {"count": stop_after or count}},
        "paint": {"use": f"{HERE}:paint", "in": {"raw": "raw"}},
    }
    return make_toy_session(folder, steps, numbers=[])


def unpack(archive: Path, folder: Path) -> Session:
    """Unpack as a person would, and open what was in it."""
    with tarfile.open(archive, "r:zst") as tar:
        tar.extractall(folder, filter="data")
    return open_session(folder / "session")


def made_at(session: Session) -> dict[str, float]:
    return {row["key"]: row["created_at"] for row in read_rows(session, schema.result)}


def test_a_running_session_is_packed_and_goes_on_elsewhere_computing_nothing_again(place: "Place") -> None:
    session = place.session(toy_steps(40, sleep_s=0.02), numbers=range(30))
    runner = place.start(session)
    try:
        deadline = time.monotonic() + 60
        while _count_log(session) < 6:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        report = pack_session(session, place.folder / "packed.tar.zst")
        assert runner.poll() is None, "the runner ended before it was packed"
    finally:
        runner.kill()
        runner.wait()
    assert report.missing == ()
    copy = unpack(report.target, place.folder / "elsewhere")
    with open_view(copy) as view:
        assert view.overview().runner.state == "stopped"
        assert view.trace("0").steps
    before, results = made_at(copy), results_of(copy)
    assert before
    assert copy.document.store is None
    arrive(place.folder / "new_disk", range(40))
    copy, _ = relink_root(copy, "numbers", place.folder / "new_disk" / "numbers")
    assert run_session(copy, Settings(cores=2)).finished
    assert {key: at for key, at in made_at(copy).items() if key in before} == before
    assert {key: content for key, content in results_of(copy).items() if key in results} == results
    assert len({unit for step_name, unit in outcomes_of(copy) if step_name == "triple"}) == 40
    _, members = replay_log(copy, "total", place.folder / "replay")
    assert len(members) == len(set(members)) == 40


def _count_log(session: Session) -> int:
    with open_view(session) as view:
        return len(view.snapshots("total"))


def test_files_that_a_state_drops_while_it_is_packed_are_no_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_toy_session(tmp_path, toy_steps(6), numbers=range(6))
    run_session(session, Settings(cores=2))
    real, rounds = packing.read_wanted, []

    def read_wanted(store: Path, *, with_images: bool) -> packing.Wanted:
        wanted = real(store, with_images=with_images)
        rounds.append(1)
        gone = ("session:steps/total/1/dropped_meanwhile.txt",) if len(rounds) == 1 else ()
        return packing.Wanted((*gone, *wanted.files), wanted.left_out, wanted.optional)

    monkeypatch.setattr(packing, "read_wanted", read_wanted)
    assert pack_session(session, tmp_path / "packed").missing == ()
    assert len(rounds) == 2


def test_the_files_of_a_state_are_put_aside_before_the_rest_is_copied(place: "Place", monkeypatch: pytest.MonkeyPatch) -> None:
    session = place.session(toy_steps(6), numbers=range(6))
    run_session(session, Settings(cores=2))
    real = packing.read_wanted

    def read_wanted(store: Path, *, with_images: bool) -> packing.Wanted:
        for path in (session.folder / "steps" / "total").rglob("*_state.txt"):
            path.unlink()  # as a runner does that is faster than the copy
        return real(store, with_images=with_images)

    monkeypatch.setattr(packing, "read_wanted", read_wanted)
    assert pack_session(session, place.folder / "packed").missing == ()
    assert list((place.folder / "packed" / "steps" / "total").rglob("*_state.txt"))


def test_a_packed_folder_is_whole_and_small_without_images(tmp_path: Path) -> None:
    session = raw_session(tmp_path, 3)
    run_session(session, Settings(cores=2))
    (session.folder / SESSION_ALARMS).write_text("without: [swap]", encoding="utf-8")
    told: list[tuple[int, int]] = []
    whole = pack_session(session, tmp_path / "whole", on_progress=lambda done, total: told.append((done, total)))
    small = pack_session(session, tmp_path / "small", with_images=False)
    assert (whole.n_files, whole.n_left_out, whole.missing) == (9, 0, ())
    assert (small.n_files, small.n_left_out) == (6, 3)
    assert (tmp_path / "small" / SESSION_ALARMS).read_text(encoding="utf-8") == "without: [swap]"
    assert told[-1] == (6, 6)
    assert sorted(path.suffix for path in (tmp_path / "small" / "steps").rglob("*.*")) == [".png"] * 3
    assert whole.n_bytes == sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    with open_view(open_session(tmp_path / "small")) as view:
        assert view.trace("1").steps[1].status == "item"
    (row,) = read_rows(open_session(tmp_path / "whole"), schema.runner)
    assert (row["state"], row["pid"]) == ("stopped", None)
    assert not list(tmp_path.glob(".*")), "something temporary was left"


def test_what_is_missing_is_told_and_the_command_says_so(tmp_path: Path) -> None:
    session = raw_session(tmp_path, 3)
    run_session(session, Settings(cores=2))
    lost = sorted((session.folder / "steps").rglob("*.mrc"))[0]
    lost.unlink()
    answer = CliRunner().invoke(app, ["pack", str(session.folder), "-o", str(tmp_path / "out.tar.zst")])
    assert answer.exit_code == 3
    assert f"missing files of the session (1):\n  session:{lost.relative_to(session.folder)}" in answer.output
    assert (tmp_path / "out.tar.zst").is_file()


def test_packing_refuses_what_would_do_harm(tmp_path: Path) -> None:
    session = raw_session(tmp_path, 1)
    with pytest.raises(SessionError, match="has not been run yet"):
        pack_session(session, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
    run_session(session, Settings(cores=1))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "already").touch()
    for target in ("there", "there/already"):
        with pytest.raises(SessionError, match="already exists"):
            pack_session(session, tmp_path / target)
    with pytest.raises(SessionError, match="is inside the session"):
        pack_session(session, session.folder / "packed")
    assert not list(tmp_path.glob(".*"))


def test_a_row_that_leads_out_of_the_session_is_refused(tmp_path: Path) -> None:
    session = raw_session(tmp_path, 1)
    run_session(session, Settings(cores=1))
    engine = engine_for(session.store_path)
    with engine.begin() as connection:
        record = json.dumps({"value": 1, "image": "session:../../secret", "preview": None})
        where = schema.result.c.record_type == Picture.stored_name
        connection.execute(update(schema.result).where(where).values(record=record))
    engine.dispose()
    with pytest.raises(SessionError, match="leads out of its root"):
        pack_session(session, tmp_path / "packed.tar.zst")
    assert not (tmp_path / "packed.tar.zst").exists()


def test_a_relinked_root_is_read_from_and_nothing_is_computed_again(tmp_path: Path) -> None:
    session = raw_session(tmp_path, 3)
    run_session(session, Settings(cores=2))
    before = made_at(session)
    (tmp_path / "numbers").rename(tmp_path / "archive")
    answer = CliRunner().invoke(app, ["relink", str(session.folder), f"numbers={tmp_path / 'archive'}"])
    assert answer.exit_code == 0, answer.output
    assert "3 of 3 known files found" in answer.output
    relinked = open_session(session.folder)
    assert relinked.roots["numbers"] == str(tmp_path / "archive")
    (tmp_path / "archive" / "3.txt").write_text("3")
    params = {"raw": relinked.document.steps["raw"].model_copy(update={"params": {"count": 4}})}
    steps = {**relinked.document.steps, **params}
    longer = Session(relinked.folder, relinked.document.model_copy(update={"steps": steps}))
    assert run_session(longer, Settings(cores=2)).n_failed == 0
    after = made_at(longer)
    assert {key: after[key] for key in before} == before
    assert outcomes_of(longer)["paint", "3"]["status"] == "item"


def test_relinking_says_what_is_missing_and_refuses_a_folder_with_nothing_of_it(tmp_path: Path) -> None:
    session = raw_session(tmp_path, 3)
    run_session(session, Settings(cores=2))
    empty, part = tmp_path / "empty", tmp_path / "part"
    empty.mkdir()
    part.mkdir()
    (part / "0.txt").write_text("0")
    (part / "1.txt").write_text("longer than it was")
    with pytest.raises(SessionError, match=r"has none of the 3 files.*numbers:0\.txt.*--force"):
        relink_root(session, "numbers", empty)
    assert open_session(session.folder).document == session.document
    relinked, report = relink_root(session, "numbers", part)
    assert (report.n_found, report.missing, report.changed) == (1, ("numbers:2.txt",), ("numbers:1.txt",))
    forced, report = relink_root(relinked, "numbers", empty, force=True)
    assert (report.n_found, len(report.missing)) == (0, 3)
    assert open_session(session.folder).document == forced.document
    with pytest.raises(SessionError, match="has no root 'movies'; it has numbers"):
        relink_root(session, "movies", part)
    with pytest.raises(SessionError, match="is not a folder"):
        relink_root(session, "numbers", tmp_path / "nowhere")


def test_several_roots_are_relinked_together_or_not_at_all(tmp_path: Path) -> None:
    session = raw_session(tmp_path, 1)
    document = session.document.model_copy(update={"roots": {**session.document.roots, "gain": "/nowhere"}})
    (session.folder / "session.yaml").write_text(dump_document(document))
    for name in ("new_numbers", "new_gain"):
        (tmp_path / name).mkdir()
    numbers, gain = f"numbers={tmp_path / 'new_numbers'}", f"gain={tmp_path / 'new_gain'}"
    links = [exported_link(session, Path(session.roots["numbers"]) / "0.txt"), exported_link(session, Path("/nowhere/gain.mrc"))]

    def call(*words: str) -> Result:
        return CliRunner().invoke(app, ["relink", str(session.folder), *words])

    for words, told in (
        ([numbers, f"gain={tmp_path / 'none'}"], "is not a folder"),
        ([numbers, "gain"], "write NAME=FOLDER"),
        ([numbers, numbers], "numbers: given twice"),
    ):
        assert told in call(*words).stderr
        assert open_session(session.folder).document == document
        assert [link.resolve().parent for link in links] == [Path(session.roots["numbers"]), Path("/nowhere")]
    done = call(numbers, gain)
    assert done.exit_code == 0
    assert [line.partition(" is ")[0] for line in done.stdout.splitlines()[:3:2]] == ["numbers", "gain"]
    roots = open_session(session.folder).document.roots
    assert (roots["numbers"], roots["gain"]) == (str(tmp_path / "new_numbers"), str(tmp_path / "new_gain"))
    assert [link.resolve().parent for link in links] == [tmp_path / "new_numbers", tmp_path / "new_gain"]


def exported_link(session: Session, target: Path) -> Path:
    link = session.folder / "exports/relion/Movies" / target.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))
    return link


def test_links_of_exported_projects_follow_the_raw_data(tmp_path: Path) -> None:
    session = raw_session(tmp_path, 2)
    run_session(session, Settings(cores=2))
    old, new = Path(session.roots["numbers"]), tmp_path / "archive"
    links = [exported_link(session, old / "0.txt"), exported_link(session, session.folder / "session.yaml")]
    old.rename(new)
    assert not links[0].exists()
    _, report = relink_root(session, "numbers", new)
    assert report.n_links == 1
    assert links[0].read_text() == "0" and not links[0].readlink().is_absolute()
    assert links[1].resolve() == session.folder / "session.yaml"


def test_links_follow_when_the_session_itself_was_moved(tmp_path: Path) -> None:
    session = raw_session(tmp_path, 2)
    run_session(session, Settings(cores=2))
    link = exported_link(session, Path(session.roots["numbers"]) / "1.txt")
    elsewhere = tmp_path / "far" / "away" / "session"
    elsewhere.parent.mkdir(parents=True)
    session.folder.rename(elsewhere)
    moved = elsewhere / link.relative_to(session.folder)
    assert not moved.exists()
    relink_root(open_session(elsewhere), "numbers", Path(session.roots["numbers"]))
    assert moved.read_text() == "1"


def test_relinking_is_refused_while_a_runner_lives(place: "Place") -> None:
    session = place.session(toy_steps(2), numbers=range(2))
    assert relink_root(session, "numbers", place.folder / "a" / "numbers")[1].n_found == 0  # not run yet: nothing is known
    store = Store(session.store_at)
    store.claim()
    with pytest.raises(SessionBusy, match="is already being processed"):
        relink_root(session, "numbers", place.folder)
    engine = engine_for(session.store_at)
    with engine.begin() as connection:
        connection.execute(update(schema.runner).values(host="elsewhere"))
    engine.dispose()
    assert relink_root(session, "numbers", place.folder, lease_s=0.3)[1].missing == ()
    store.dispose()


def test_rows_of_a_copy_keep_the_order_of_the_change_sequence(place: "Place") -> None:
    session = place.session(toy_steps(8), numbers=range(8))
    run_session(session, Settings(cores=2))
    store = Store(session.store_at)
    store.claim()
    with store.transaction() as connection:
        rows = [{"seq": store.next_seq(), "level": "info", "message": str(n), "at": 0.0} for n in range(1200)]  # some pages
        connection.execute(insert(schema.notice), rows)
    store.close("done")
    pack_session(session, place.folder / "packed")
    copy = open_session(place.folder / "packed")
    for table in schema.metadata.sorted_tables:
        if table.name != "runner":
            assert sorted(map(str, read_rows(copy, table))) == sorted(map(str, read_rows(session, table))), table.name
    with closing(sqlite3.connect(copy.store_path)) as connection:
        sequence = [row[0] for row in connection.execute("SELECT seq FROM outcome ORDER BY rowid")]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert sequence == sorted(sequence)
