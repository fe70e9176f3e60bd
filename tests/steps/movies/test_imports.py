"""Taking files from a folder while they are written: when, which, and what is said about the others."""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from icestream.flow import Arrival, Pulse, SeenFile, Troubles
from icestream.flow.execution.watching import WorkerSourceContext
from icestream.io.image import write_mrc
from icestream.io.ready import check_complete
from icestream.records import Acquisition, GainReference, Micrograph, Movie
from icestream.steps.micrographs.import_micrographs import ImportMicrographsParams, import_micrographs, read_micrograph
from icestream.steps.movies import file_arrival
from icestream.steps.movies.file_arrival import content_identity, safe_name
from icestream.steps.movies.file_source import watch_files
from icestream.steps.movies.import_gain import ImportGainParams, foresee_gain, import_gain
from icestream.steps.movies.import_movies import ImportMoviesParams, foresee_movies, import_movies


def make_movie(path: Path, *, n_frames: int = 3, side_px: int = 16, value: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    stack = np.full((n_frames, side_px, side_px), value, dtype=np.int16)
    write_mrc(path, stack, pixel_size_ang=1.5)
    return path


def age(path: Path, seconds: float = 100.0) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def context(folder: Path, root: str = "movies", known: set[SeenFile] | None = None) -> WorkerSourceContext:
    return WorkerSourceContext({root: str(folder)}, known or set(), threading.Event())


def arrivals(generator: Iterator[Any]) -> list[Arrival]:
    return [found for found in generator if isinstance(found, Arrival)]


def take(folder: Path, known: set[SeenFile] | None = None, **params: Any) -> list[Arrival]:
    settings: dict[str, Any] = {"idle_s": 0.3, "stable_s": 0.2, "give_up_s": 0.2, "rescan_s": 0.1}
    chosen = ImportMoviesParams.model_validate(settings | params)
    return arrivals(import_movies(params=chosen, ctx=context(folder, known=known)))


def test_files_that_are_there_are_taken_oldest_first(tmp_path: Path) -> None:
    for number, name in enumerate(["b.mrcs", "a.mrcs", "c.mrcs"]):
        age(make_movie(tmp_path / name, value=number), 100 - number)
    found = take(tmp_path)
    assert [one.name for one in found] == ["b", "a", "c"]
    movie = found[0].record
    assert isinstance(movie, Movie)
    assert (movie.file, movie.n_frames, movie.height_px, movie.width_px) == ("movies:b.mrcs", 3, 16, 16)


def test_folders_are_searched_to_any_depth_and_patterns_choose(tmp_path: Path) -> None:
    for name in ["GridSquare_1/Data/x_fractions.mrc", "GridSquare_2/Data/y_fractions.mrc", "z.mrc", "notes.txt"]:
        age(make_movie(tmp_path / name))
    assert [one.name for one in take(tmp_path, pattern="**/*_fractions.mrc")] == ["x_fractions", "y_fractions"]
    assert [one.name for one in take(tmp_path, pattern="*.mrc", max_files=3)] != []


def test_temporary_and_hidden_names_are_never_taken(tmp_path: Path) -> None:
    for name in [".a.mrcs.Xy12Qz", "b.mrcs.part", "c.mrcs.tmp", ".hidden/d.mrcs", "e.mrcs~", "good.mrcs"]:
        age(make_movie(tmp_path / name))
    assert [one.name for one in take(tmp_path)] == ["good"]


def test_a_growing_file_is_not_taken_before_it_is_whole(tmp_path: Path) -> None:
    content = make_movie(tmp_path / "elsewhere" / "m.mrcs", n_frames=8, side_px=64).read_bytes()
    watched = tmp_path / "watched"
    watched.mkdir()
    written = threading.Event()

    def write_slowly() -> None:
        with (watched / "m.mrcs").open("wb") as handle:
            for start in range(0, len(content), len(content) // 6):
                handle.write(content[start : start + len(content) // 6])
                handle.flush()
                time.sleep(0.12)
            written.set()

    writer = threading.Thread(target=write_slowly)
    generator = import_movies(
        params=ImportMoviesParams(idle_s=30, stable_s=0.05, give_up_s=30, rescan_s=0.05, max_files=1), ctx=context(watched)
    )
    writer.start()
    for found in generator:
        if isinstance(found, Arrival):
            assert found.record is not None
            assert found.file is not None
            assert found.file.size_bytes == len(content)
            break
    writer.join()
    assert written.is_set()


def test_a_file_that_never_finishes_is_reported_with_both_sizes(tmp_path: Path) -> None:
    path = make_movie(tmp_path / "m.mrcs")
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[: whole - 100])
    age(path)
    (found,) = take(tmp_path)
    assert found.record is None
    assert str(whole) in str(found.error)
    assert str(whole - 100) in str(found.error)


def test_a_file_still_incomplete_at_the_end_is_listed(tmp_path: Path) -> None:
    path = make_movie(tmp_path / "m.mrcs")
    path.write_bytes(path.read_bytes()[:-100])
    (found,) = take(tmp_path, give_up_s=1000)
    assert str(found.error).startswith("never finished:")


@pytest.mark.parametrize(("content", "said"), [(b"", "empty"), (b"I am a letter, not a movie." * 100, "")])
def test_empty_and_foreign_files_are_reported(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.mrcs"
    path.write_bytes(content)
    age(path)
    (found,) = take(tmp_path)
    assert found.record is None
    assert said in str(found.error)
    assert str(tmp_path) not in str(found.error)


def test_a_renamed_file_is_not_a_new_exposure(tmp_path: Path) -> None:
    age(make_movie(tmp_path / "first.mrcs"))
    generator = import_movies(
        params=ImportMoviesParams(idle_s=1.0, stable_s=0.1, give_up_s=1, rescan_s=0.05), ctx=context(tmp_path)
    )
    names = []
    for found in generator:
        if isinstance(found, Arrival):
            names.append(found.name)
            (tmp_path / "first.mrcs").rename(tmp_path / "second.mrcs")
    assert names == ["first"]


def test_a_copy_under_another_name_is_a_new_exposure(tmp_path: Path) -> None:
    for name in ["a.mrcs", "b.mrcs"]:
        age(make_movie(tmp_path / name))
    assert len({one.identity for one in take(tmp_path)}) == 2


def test_what_was_taken_before_is_not_taken_again_unless_it_changed(tmp_path: Path) -> None:
    age(make_movie(tmp_path / "a.mrcs"))
    (first,) = take(tmp_path)
    assert first.file is not None
    assert take(tmp_path, known={first.file}) == []
    age(make_movie(tmp_path / "a.mrcs", value=9), 50)
    (second,) = take(tmp_path, known={first.file})
    assert second.identity != first.identity


def test_the_identity_knows_no_path_and_no_time(tmp_path: Path) -> None:
    one, two = make_movie(tmp_path / "here" / "m.mrcs"), make_movie(tmp_path / "there" / "m.mrcs")
    age(one)
    size = one.stat().st_size
    assert content_identity("m.mrcs", one, size) == content_identity("m.mrcs", two, size)
    assert content_identity("n.mrcs", one, size) != content_identity("m.mrcs", one, size)


def test_the_stream_stays_open_while_the_folder_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "not_there_yet"
    generator = import_movies(
        params=ImportMoviesParams(idle_s=0.3, stable_s=0.05, give_up_s=1, rescan_s=0.05, max_files=1), ctx=context(folder)
    )
    notes = []
    for number, found in enumerate(generator):
        if isinstance(found, Arrival):
            break
        notes += [found.note] if isinstance(found, Pulse) else []
        if number == 20:  # two seconds, far beyond idle_s
            age(make_movie(folder / "m.mrcs"))
    assert any("not_there_yet" in note for note in notes)
    assert isinstance(found, Arrival)


def test_a_folder_that_vanishes_is_told_until_it_is_back(tmp_path: Path) -> None:
    folder, away = tmp_path / "movies", tmp_path / "away"
    folder.mkdir()
    age(make_movie(folder / "a.mrcs"), 50)
    params = ImportMoviesParams(idle_s=1, stable_s=0.05, give_up_s=1, rescan_s=0.05, max_files=2)
    told: list[Mapping[str, str]] = []
    for found in import_movies(params=params, ctx=context(folder)):
        if isinstance(found, Arrival) and found.name == "a":
            folder.rename(away)
        elif isinstance(found, Troubles):
            told.append(found.reasons)
            if found.reasons:
                age(make_movie(away / "b.mrcs"), 50)
                away.rename(folder)
    assert [list(reasons) for reasons in told if reasons] == [["movies:."]]
    assert told[-1] == {}
    assert "not there any more" in next(filter(None, told))["movies:."]


def test_a_name_that_is_no_text_arrives_broken_and_the_next_file_comes(tmp_path: Path) -> None:
    age(make_movie(tmp_path / "good.mrcs"), 50)
    bad = os.fsencode(tmp_path) + b"/bad\xff.mrcs"
    Path(os.fsdecode(bad)).write_bytes((tmp_path / "good.mrcs").read_bytes())
    age(Path(os.fsdecode(bad)))
    found = take(tmp_path)
    assert [(one.name, one.error) for one in found] == [
        ("bad_", "its name has unprintable characters; rename it"),
        ("good", None),
    ]
    json.dumps([one.identity for one in found]).encode()


def test_a_line_break_in_a_name_and_a_pipe_stop_nothing(tmp_path: Path) -> None:
    age(make_movie(tmp_path / "new\nline.mrcs"))
    os.mkfifo(tmp_path / "pipe.mrcs")
    age(make_movie(tmp_path / "good.mrcs"), 50)
    found = take(tmp_path)
    assert [one.error is None for one in found] == [False, True]
    assert "\n" not in found[0].name


def test_only_movies_are_looked_at(tmp_path: Path) -> None:
    for name in ["readme.txt", "m.xml", "thumb.jpg", "m.mrcs", "x.tif.mdoc"]:
        age(make_movie(tmp_path / name))
    assert [one.name for one in take(tmp_path)] == ["m"]


def test_a_damaged_sidecar_does_not_cost_its_movie(tmp_path: Path) -> None:
    age(make_movie(tmp_path / "FoilHole_1_Data_2_Fractions.mrc"))
    (tmp_path / "FoilHole_1_Data_2.xml").write_text("<broken")
    (found,) = take(tmp_path)
    assert isinstance(found.record, Movie)
    assert found.record.metadata is not None
    assert str(found.record.metadata.note).startswith("FoilHole_1_Data_2.xml was not read:")


def test_whatever_a_reader_raises_becomes_a_reason(tmp_path: Path) -> None:
    age(make_movie(tmp_path / "m.mrcs"))

    def read(path: Path, ref: str) -> Any:
        raise ZeroDivisionError(f"{path} has no size")

    params = ImportMoviesParams(idle_s=0.3, stable_s=0.1, give_up_s=1, rescan_s=0.1)
    (found,) = arrivals(watch_files(params, context(tmp_path), read, suffixes=None))
    assert found.error == "ZeroDivisionError: m.mrcs has no size"


def test_a_source_that_has_all_its_files_ends_at_once_when_run_again(tmp_path: Path) -> None:
    age(make_movie(tmp_path / "m.mrcs"))
    (first,) = take(tmp_path, max_files=1, idle_s=1000)
    assert first.file is not None
    assert take(tmp_path, known={first.file}, max_files=1, idle_s=1000) == []


def test_no_more_files_than_asked_for_are_taken(tmp_path: Path) -> None:
    for name in "abcd":
        age(make_movie(tmp_path / f"{name}.mrcs"))
    assert len(take(tmp_path, max_files=2, idle_s=1000)) == 2


def test_names_are_made_harmless() -> None:
    assert safe_name(Path("a b;rm -rf$(x).mrc")) == "a_b_rm_-rf_x_"
    assert safe_name(Path("..mrc")) == "unnamed"
    assert safe_name(Path("mic.bin_avg.png")) == "mic.bin_avg"
    assert len(safe_name(Path("x" * 300 + ".mrc"))) == 120


def test_a_sidecar_gives_acquisition_and_position(tmp_path: Path, shared_data: Path) -> None:
    source = next((shared_data / "session_metadata" / "epu_afis_2020").rglob("FoilHole_*_Data_*[0-9].xml"))
    folder = tmp_path / "GridSquare_7" / "Data"
    age(make_movie(folder / f"{source.stem}_Fractions.mrc"))
    (folder / source.name).write_bytes(source.read_bytes())
    (found,) = take(tmp_path, pattern="**/*_Fractions.mrc")
    assert isinstance(found.record, Movie)
    assert found.record.metadata is not None
    assert found.record.metadata.grid_square == "7"
    assert found.acquisition is not None
    assert found.acquisition.voltage_kv == pytest.approx(300)


def test_micrographs_are_single_images_with_what_their_header_says(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "epu.mrc").symlink_to(shared_data / "epu_falcon_titan" / "epu2.9_example.mrc")
    (tmp_path / "ice.mrc").symlink_to(shared_data / "contaminated_micrograph" / "Ucsf_stack_1142_DW.mrc")
    make_movie(tmp_path / "movie.mrc")
    make_movie(tmp_path / "own.mrc", n_frames=1)
    params = ImportMicrographsParams(idle_s=0.3, stable_s=0.1, give_up_s=1, rescan_s=0.1)
    found = {one.name: one for one in arrivals(import_micrographs(params=params, ctx=context(tmp_path, "micrographs")))}
    epu = found["epu"]
    assert isinstance(epu.record, Micrograph)
    assert (epu.record.height_px, epu.record.width_px) == (4096, 4096)
    assert epu.record.metadata is not None
    assert epu.record.metadata.applied_defocus_um == pytest.approx(2.2)  # underfocus is positive
    assert epu.acquisition is not None
    assert epu.acquisition.pixel_size_ang == pytest.approx(0.6665513)
    assert epu.record.dose_e_per_ang2(epu.acquisition) == pytest.approx(41.17, abs=0.01)
    assert isinstance(found["ice"].record, Micrograph)
    assert found["ice"].acquisition == Acquisition()  # 1 Å is what programs write that do not know it
    assert found["own"].acquisition == Acquisition(pixel_size_ang=1.5)
    assert "movie" not in found


def test_the_pixel_size_of_a_binned_micrograph_is_told_as_that_of_the_raw_movie(shared_data: Path) -> None:
    path = shared_data / "epu_falcon_titan" / "epu2.9_example.mrc"
    micrograph, acquisition = read_micrograph(path, "micrographs:epu.mrc", bin=2.0, dose_weighted=False)
    assert acquisition is not None
    assert acquisition.pixel_size_ang is not None
    assert acquisition.pixel_size_ang * micrograph.bin == pytest.approx(0.6665513)


def test_the_gain_comes_late_and_an_impossible_one_is_refused(tmp_path: Path) -> None:
    params = ImportGainParams(stable_s=0.05, give_up_s=1, rescan_s=0.05, idle_s=5)
    write_mrc(tmp_path / "bad_gain.mrc", np.full((8, 8), -1, dtype=np.float32), pixel_size_ang=1)
    found: list[Any] = []
    for one in import_gain(params=params, ctx=context(tmp_path, "gain")):
        if not isinstance(one, Pulse):
            found.append(one)
        elif len(found) == 2 and not (tmp_path / "the_gain.tif").exists():
            tifffile.imwrite(tmp_path / "the_gain.tif", np.ones((8, 8), dtype=np.float32))
    nothing_yet, refused, arrived, well = found
    assert (nothing_yet, well) == (Troubles({}), Troubles({}))  # a good one came: the refused one does not matter any more
    assert list(refused.reasons) == ["gain:bad_gain.mrc"]
    assert "negative" in refused.reasons["gain:bad_gain.mrc"]
    assert isinstance(arrived.record, GainReference)
    assert (arrived.record.height_px, arrived.record.operation) == (8, None)


def everything(folder: Path, **params: Any) -> tuple[list[Any], str]:
    """Return all that the source of movies says, and why it ended."""
    settings: dict[str, Any] = {"idle_s": 0.4, "stable_s": 0.1, "give_up_s": 0.2, "rescan_s": 0.1}
    generator = import_movies(params=ImportMoviesParams.model_validate(settings | params), ctx=context(folder))
    said = []
    while True:
        try:
            said.append(next(generator))
        except StopIteration as ended:
            return said, str(ended.value)


def test_a_file_that_may_not_be_read_is_its_own_trouble_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mrcs", "secret.mrcs", "z.mrcs"):
        age(make_movie(tmp_path / name, value=ord(name[0])))
    refusals: list[Path] = []

    def check(path: Path) -> None:
        if path.name == "secret.mrcs" and len(refusals) < 2:
            refusals.append(path)
            raise PermissionError(13, "Permission denied", str(path))
        check_complete(path)

    monkeypatch.setattr(file_arrival, "check_complete", check)
    said, _ = everything(tmp_path, idle_s=1.0)
    troubles = [one.reasons for one in said if isinstance(one, Troubles)]
    assert troubles == [{"movies:secret.mrcs": "Permission denied"}, {}]
    assert [one.name for one in said if isinstance(one, Arrival)] == ["a", "z", "secret"]
    assert any("movies:secret.mrcs: Permission denied" in one.note for one in said if isinstance(one, Pulse))


def test_a_disk_that_fails_while_a_file_is_read_does_not_make_it_broken(tmp_path: Path) -> None:
    age(make_movie(tmp_path / "m.mrcs"))
    tries = []

    def read(path: Path, ref: str) -> Any:
        tries.append(path)
        if len(tries) == 1:
            raise OSError(5, "Input/output error")
        return Movie(file=ref, n_frames=3, height_px=16, width_px=16, format="mrc", size_bytes=1), None

    params = ImportMoviesParams(idle_s=1.0, stable_s=0.1, give_up_s=1, rescan_s=0.1)
    (found,) = arrivals(watch_files(params, context(tmp_path), read, suffixes=None))
    assert (len(tries), found.error) == (2, None)


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.mrcs").symlink_to(tmp_path / "not_there.mrcs")
    said, _ = everything(tmp_path)
    assert list(said[0].reasons) == ["movies:m.mrcs"]
    assert "is a link that leads nowhere" in said[0].reasons["movies:m.mrcs"]


def test_a_single_image_is_no_movie(tmp_path: Path) -> None:
    for name, n_frames in (("a_fractions.mrc", 3), ("a.mrc", 1), ("gain.mrc", 1)):
        age(make_movie(tmp_path / name, n_frames=n_frames))
    said, _ = everything(tmp_path)
    assert [one.name for one in said if isinstance(one, Arrival)] == ["a_fractions"]
    assert [one for one in said if isinstance(one, Troubles)] == [Troubles({})]
    assert any("2 left out: movies:a.mrc: has one image" in one.note for one in said if isinstance(one, Pulse))


def test_a_montage_is_no_movie(tmp_path: Path) -> None:
    for name, montage in (("a.mrc", 1), ("b.mrc", 0)):
        age(make_movie(tmp_path / name, n_frames=3))
        age_of = tmp_path / f"{name}.mdoc"
        age_of.write_text(f"Voltage = 300\nMontage = {montage}\n\n[ZValue = 0]\nTiltAngle = 0\n")
        age(age_of)
    said, _ = everything(tmp_path)
    assert [one.name for one in said if isinstance(one, Arrival)] == ["b"]
    assert any("1 left out: movies:a.mrc: is a montage, as a.mrc.mdoc says" in one.note for one in said if isinstance(one, Pulse))


@pytest.mark.parametrize(
    ("pattern", "n_frames", "told"),
    [
        ("**/*.tif", 3, "none of the 2 files that are there fits **/*.tif, such as movies:a.mrc"),
        ("**/*", 1, "2 files are there, and none is what is wanted: movies:a.mrc: has one image"),
        ("m.mrc", 3, "never arrived"),
    ],
)
def test_a_stream_that_ends_with_nothing_says_why(tmp_path: Path, pattern: str, n_frames: int, told: str) -> None:
    for name in ("a.mrc", "b.mrc"):
        age(make_movie(tmp_path / name, n_frames=n_frames))
    said, _ = everything(tmp_path, pattern=pattern)
    last = [one for one in said if isinstance(one, Troubles)][-1]
    assert list(last.reasons) == [f"movies:{pattern}"]
    assert last.reasons[f"movies:{pattern}"].startswith(told)


def test_a_stream_that_had_files_before_ends_without_a_word(tmp_path: Path) -> None:
    age(make_movie(tmp_path / "other.tif"))
    chosen = ImportMoviesParams(idle_s=0.3, stable_s=0.1, give_up_s=0.2, rescan_s=0.1, pattern="*.mrc")
    said = list(import_movies(params=chosen, ctx=context(tmp_path, known={SeenFile("movies:purged.mrc", 1, 1)})))
    assert [one for one in said if isinstance(one, Troubles)] == [Troubles({})]


def test_what_is_there_before_a_session_is_made_is_foreseen(tmp_path: Path) -> None:
    assert list(foresee_movies(ImportMoviesParams(), tmp_path)) == []
    make_movie(tmp_path / "a.mrc")
    (told,) = foresee_movies(ImportMoviesParams(pattern="*.tif"), tmp_path)
    assert (told.refused, "fits *.tif" in told.text) == (False, True)
    write_mrc(tmp_path / "gain.mrc", np.full((8, 8), np.nan, dtype=np.float32), pixel_size_ang=1)
    (refused,) = foresee_gain(ImportGainParams(pattern="gain.mrc"), tmp_path)
    assert (refused.refused, "64 values that are not finite" in refused.text) == (True, True)
    write_mrc(tmp_path / "gain2.mrc", np.ones((8, 8), dtype=np.float32), pixel_size_ang=1)
    assert list(foresee_gain(ImportGainParams(pattern="gain*.mrc"), tmp_path)) == []
