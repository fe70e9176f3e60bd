from pathlib import Path

import numpy as np
import pytest

from icestream.errors import WorkflowError
from icestream.facility import watch_decisions
from icestream.facility.folders import (
    check_pattern,
    collect_values,
    find_folders,
    first_image,
    folder_placeholder,
    look_for_data,
    read_values_file,
    session_name,
)
from icestream.facility.new_sessions import WatchPlan, make_choice, plan_session
from icestream.facility.watch_decisions import Folder, Phase, WatchState, Wish
from icestream.io.image import write_mrc
from icestream.workflows import load_template, read_template
from toys.session import TOYS

START = WatchState(root="/data", pattern="*/")


def _folder(phase: Phase, since: float = 0.0, **fields: object) -> Folder:
    return Folder.model_validate({"phase": phase, "since": since, **fields})


def _phases(state: WatchState) -> dict[str, Phase]:
    return {name: folder.phase for name, folder in state.folders.items()}


def test_folders_of_the_first_look_are_ignored_and_later_ones_are_not() -> None:
    first = watch_decisions.admit(START, ["old"], take_existing=False, now=1)
    second = watch_decisions.admit(first, ["old", "new"], take_existing=False, now=2)
    assert _phases(second) == {"old": Phase.IGNORED, "new": Phase.EMPTY}
    third = watch_decisions.admit(second, ["old", "new"], take_existing=True, now=3)
    assert _phases(third) == {"old": Phase.EMPTY, "new": Phase.EMPTY}
    assert _phases(watch_decisions.admit(START, ["old"], take_existing=True, now=1)) == {"old": Phase.EMPTY}


def test_a_folder_that_is_opened_again_tells_since_when() -> None:
    state = START.model_copy(update={"folders": {"a": _folder(Phase.RUNNING, 5.0)}})
    seen = []
    for now, folder in enumerate(
        [watch_decisions.end(state.folders["a"], []), watch_decisions.look_again(_folder(Phase.ENDED, 5.0), ["x"])], 10
    ):
        state = state.put("a", folder, now=now)
        seen.append(state.folders["a"].stands_since)
    noted = state.put("a", state.folders["a"].model_copy(update={"note": "more"}), now=99.0)
    assert (seen, noted.folders["a"].stands_since, noted.folders["a"].since) == ([10, 11], 11, 5.0)


def test_what_people_ask_for_is_done_where_a_folder_stands_so() -> None:
    def asked(phase: Phase, what: str) -> Folder:
        folder = _folder(phase, falls=5, problems=["'voltage' is not given"])
        return watch_decisions.grant(folder, Wish(folder="a", what=what, author="anna", template="movies_to_ctf"))

    taken = asked(Phase.IGNORED, "take")
    assert (taken.phase, taken.template, taken.problems, taken.note) == (
        Phase.EMPTY, "movies_to_ctf", [], "taken, as anna asked",
    )  # fmt: skip
    again = asked(Phase.FALLEN, "retry")
    assert (again.phase, again.falls, again.alert) == (Phase.READY, 0, False)
    alone = asked(Phase.INCOMPLETE, "ignore")
    assert (alone.phase, alone.left_alone) == (Phase.IGNORED, True)
    state = START.model_copy(update={"folders": {"a": alone}, "looked": True})
    assert watch_decisions.admit(state, ["a"], take_existing=True, now=3).folders["a"].phase is Phase.IGNORED
    for phase, what in ((Phase.RUNNING, "take"), (Phase.RUNNING, "ignore"), (Phase.ENDED, "retry")):
        assert asked(phase, what) == _folder(phase, falls=5, problems=["'voltage' is not given"])


def test_an_empty_first_look_makes_the_next_folder_new() -> None:
    state = watch_decisions.admit(watch_decisions.admit(START, [], take_existing=False, now=1), ["a"], take_existing=False, now=2)
    assert _phases(state) == {"a": Phase.EMPTY}


@pytest.mark.parametrize(("at_most", "expected"), [(None, ["b", "a", "d"]), (3, ["b", "a"]), (1, []), (2, ["b"])])
def test_the_oldest_start_first_and_only_as_many_as_there_are_places(at_most: int | None, expected: list[str]) -> None:
    folders = {
        "a": _folder(Phase.READY, 2),
        "b": _folder(Phase.FALLEN, 1),
        "c": _folder(Phase.RUNNING, 0),
        "d": _folder(Phase.READY, 3),
        "e": _folder(Phase.ENDED, 0),
        "f": _folder(Phase.STOPPED, 0),
        "g": _folder(Phase.FALLEN, 0),
    }
    state = START.model_copy(update={"folders": folders})
    assert watch_decisions.choose_starts(state, at_most=at_most, paused={"g": 11.0, "b": 9.0}, now_s=10.0) == expected


def test_pauses_grow_and_have_an_end() -> None:
    assert [watch_decisions.pause_s(falls) for falls in (1, 2, 3, 4)] == [5, 10, 20, 40]
    assert watch_decisions.pause_s(1000) == 600


def test_a_runner_that_keeps_dying_raises_an_alert_and_one_that_ran_long_does_not() -> None:
    folder = watch_decisions.start(_folder(Phase.READY), pid=5, pid_started=1.0)
    for _ in range(3):
        assert not folder.alert
        folder = watch_decisions.fall(folder, reason="no disk", ran_s=1)
    assert folder.alert
    assert (folder.phase, folder.pid, folder.note) == (Phase.FALLEN, None, "no disk")
    assert watch_decisions.fall(folder, reason="x", ran_s=3600).falls == 1
    assert watch_decisions.end(folder, set()).falls == 0


def test_new_files_open_a_folder_again_once() -> None:
    folder = watch_decisions.end(watch_decisions.start(_folder(Phase.READY), pid=5, pid_started=1.0), {"copy"})
    assert (folder.phase, folder.note) == (Phase.READY, "1 new file")
    folder = watch_decisions.end(watch_decisions.start(folder, pid=6, pid_started=2.0), {"copy"})
    assert folder.phase is Phase.ENDED
    assert watch_decisions.look_again(folder, {"copy"}) == folder
    assert watch_decisions.look_again(folder, {"copy", "late"}).phase is Phase.READY
    assert watch_decisions.stop(folder).phase is Phase.STOPPED


def test_folders_are_found_through_links_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for name in ("grid1/Images-Disc1", "grid2/Images-Disc1", ".hidden", "done", "sessions/x", "new\nline"):
        (root / name).mkdir(parents=True)
    (outside / "Images-Disc1").mkdir(parents=True)
    (root / "link").symlink_to(outside)
    (root / "link2").symlink_to(outside)
    (root / "latest").symlink_to(root / "grid1")
    (root / "loop").symlink_to(".")
    (root / "file").touch()
    (root / "done" / "session.yaml").touch()
    sessions = root / "sessions" / "all"
    found = find_folders(root, "*/", sessions=sessions)
    assert found.names == ["grid1", "grid2", "link"]
    assert found.left_out == {
        "latest": "is a link to grid1, which is watched itself",
        "link2": "is a link to link, which is watched itself",
        "loop": "is a link that leads back to the watched folder",
        "new\\nline": "its name has characters that cannot be printed; rename it",
    }
    deep = find_folders(root, "*/Images-Disc1", sessions=sessions)
    assert deep.names == ["grid1/Images-Disc1", "grid2/Images-Disc1", "link/Images-Disc1"]
    with pytest.raises(FileNotFoundError):
        find_folders(tmp_path / "gone", "*/", sessions=sessions)


def test_a_folder_that_is_left_out_is_listed_until_it_is_a_folder_of_its_own() -> None:
    left = watch_decisions.admit(START, [], take_existing=False, now=1, left_out={"latest": "is a link to a"})
    assert (left.folders["latest"].phase, left.folders["latest"].note) == (Phase.LEFT_OUT, "is a link to a")
    assert _phases(watch_decisions.admit(left, ["latest"], take_existing=False, now=2)) == {"latest": Phase.EMPTY}


@pytest.mark.parametrize("pattern", ["/x", "../x", "a/../../b", "", "~/x"])
def test_a_pattern_stays_below_the_root(pattern: str) -> None:
    with pytest.raises(WorkflowError, match="--pattern"):
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("name", "counts"),
    [("a.tiff", True), ("x/y/a.eer", True), ("a.mrc.bz2", True), ("a.tif.mdoc", True), ("FoilHole_1.xml", True),
     (".a.tiff.x7", False), ("a.tiff.part", False), ("notes.txt", False), ("icestream.yaml", False), (".h/a.mrc", False)],
)  # fmt: skip
def test_what_counts_as_first_data(tmp_path: Path, name: str, counts: bool) -> None:
    assert not look_for_data(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert look_for_data(tmp_path) is counts


TEMPLATE = f"""
placeholders:
  movies: {{label: Movies, type: folder}}
  gain: {{label: Gain, type: path, optional: true}}
  voltage: {{label: Voltage, type: float}}
  pixel_size: {{label: Pixel, type: float, default: 2}}
  dose_per_frame: {{label: Dose, type: float, optional: true}}
acquisition:
  voltage_kv: {{ask: voltage}}
  pixel_size_ang: {{ask: pixel_size}}
  dose_per_frame_e_per_ang2: {{ask: dose_per_frame}}
roots: {{movies: {{ask: movies}}, gain: {{ask: gain.folder}}}}
steps: {{numbers: {{use: "{TOYS}:count_numbers", params: {{stop_after: 1}}}}}}
"""


def test_values_come_from_the_folder_the_watch_and_the_sidecar_in_this_order(tmp_path: Path) -> None:
    template = read_template(TEMPLATE, origin="x")
    (tmp_path / "a.tif").write_bytes(b"II*\0 is being written")
    (tmp_path / "a.tif.mdoc").write_text(
        "T = SerialEM: x\nVoltage = 200\n[FrameSet = 0]\nPixelSpacing = 0.9\nBinning = 1\nFrameDosesAndNumber = 1.2 30\n"
    )
    values = collect_values(tmp_path, template, folder_as="movies", given={"gain": "g.mrc"}, said={})
    assert values == {"gain": "g.mrc", "movies": str(tmp_path), "voltage": 200, "dose_per_frame": 1.2}
    (tmp_path / "icestream.yaml").write_text("voltage: 300\ngain: own.mrc\nmovies: /etc\n")
    values = collect_values(
        tmp_path, template, folder_as="movies", given={"gain": "g.mrc", "voltage": 100}, said=read_values_file(tmp_path)
    )
    assert (values["voltage"], values["gain"], values["movies"]) == (300, "own.mrc", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "is not YAML"),
        ("[1, 2]", "a map of names to values"),
        ("1: 2", "the name 1 is not text"),
        ("a: {b: 1}", "'a' is neither a single value nor a list"),
        ("a: &x [1]\nb: [*x, *x]", "'b' is neither"),
        ("a: &x [*x]", "an alias stands for what it is part of"),
        ("a: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("a: " + "x" * 70000, "larger than 64 KiB"),
    ],
)
def test_a_file_of_values_is_not_trusted(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "icestream.yaml").write_text(text)
    with pytest.raises(WorkflowError, match=r"icestream\.yaml") as caught:
        read_values_file(tmp_path)
    assert told in str(caught.value)


def test_the_placeholder_of_the_folder_is_found() -> None:
    assert folder_placeholder(load_template("movies_to_ctf")) == "movies"
    assert folder_placeholder(load_template("micrographs_to_classes")) == "micrographs"
    with pytest.raises(WorkflowError, match="asks for no such folder; it asks for movies"):
        folder_placeholder(load_template("movies_to_ctf"), "raw")


def test_names_of_sessions_are_harmless() -> None:
    assert session_name("grid 1/Images-Disc1") == "grid_1_Images-Disc1"
    assert session_name("../..") == "session"


def test_a_folder_or_a_pattern_chooses_another_template(tmp_path: Path) -> None:
    usual, other = (
        read_template(TEMPLATE, origin="usual"),
        read_template(TEMPLATE.replace("default: 2", "default: 3"), origin="other"),
    )
    screening = make_choice(other, given={"voltage": "200", "diameter": "9"}, settings={}, pattern="screen_*", name="other")
    plan = WatchPlan(
        tmp_path,
        "*/",
        tmp_path / "sessions",
        usual,
        "movies",
        values={"voltage": 300},
        choices=(screening,),
        given={"voltage": "300"},
    )
    for name in ("grid", "screen_1", "asks", "asks_badly", "asks_for_a_file"):
        (tmp_path / name).mkdir()
    (tmp_path / "asks" / "icestream.yaml").write_text("template: other\nvoltage: 120\n")
    (tmp_path / "asks_badly" / "icestream.yaml").write_text("template: no_such_template\n")
    (tmp_path / "asks_for_a_file" / "icestream.yaml").write_text("template: ./evil.yaml\n")
    state = START
    for name in ("grid", "screen_1", "asks", "asks_badly", "asks_for_a_file"):
        state = state.put(name, _folder(Phase.EMPTY))

    def made(name: str) -> tuple[float | None, float | None]:
        acquisition = plan_session(plan, state, name)[1].acquisition
        return acquisition.pixel_size_ang, acquisition.voltage_kv

    assert [made(name) for name in ("grid", "screen_1", "asks")] == [(2, 300), (3, 200), (3, 120)]
    with pytest.raises(WorkflowError, match="no_such_template"):
        made("asks_badly")
    with pytest.raises(WorkflowError, match="must be the name of a template"):
        made("asks_for_a_file")


def test_the_first_image_is_a_movie_if_there_is_one(tmp_path: Path) -> None:
    for name, n_frames in (("Atlas_1.mrc", 1), ("FoilHole_1_Data_2.mrc", 1), ("FoilHole_1_Data_2_Fractions.mrc", 3)):
        write_mrc(tmp_path / name, np.ones((n_frames, 8, 8), dtype=np.int16), pixel_size_ang=1)
    assert first_image(tmp_path) == tmp_path / "FoilHole_1_Data_2_Fractions.mrc"
    (tmp_path / "FoilHole_1_Data_2_Fractions.mrc").unlink()
    assert first_image(tmp_path) == tmp_path / "FoilHole_1_Data_2.mrc"
