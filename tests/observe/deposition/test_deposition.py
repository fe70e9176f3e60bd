"""Packages for the EMDB and EMPIAR: what they hold, and what is refused."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_session import PaperSession, new_session
from typer.testing import CliRunner

from icestream.cli import app
from icestream.errors import SessionError
from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.io.image import read_stack, write_mrc
from icestream.io.xmltree import parse_xml
from icestream.observe.deposition import read_about, write_emdb_package, write_empiar_package
from icestream.observe.deposition.emdb import fsc_xml
from icestream.observe.queries import open_view
from icestream.records import MapQuality, Micrograph, Motion, Movie, Volume

STEPS = {
    "movies": {"use": "import_movies"},
    "aligned": {"use": "motion", "in": {"movie": "movies"}},
    "refined": {"use": "refine3d", "in": {"particles": "aligned"}},
    "judged": {"use": "map_quality", "in": {"volume": "refined"}},
}
ABOUT = """
title: Lysozyme on graphene
authors:
  - {surname: Chang, initials: YW, orcid: 0000-0003-2391-473X}
  - {surname: de la Cruz, initials: M}
corresponding_author: &me
  {first_name: Yi-Wei, last_name: Chang, organization: A lab, email: me@example.org, country: DE}
principal_investigators: [*me]
emdb_entries: [EMD-8000]
"""
CURVE = {"frequency_per_ang": [0.0, 0.1, 0.2], "fsc": [1.0, 0.9, 0.1], "fsc_unmasked": [1.0, 0.8, 0.05]}


def volume(folder: Path, name: str, box: int = 8) -> str:
    path = folder / "steps/maps" / f"{name}.mrc"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mrc(path, np.random.default_rng(len(name)).normal(size=(box,) * 3).astype(np.float32), pixel_size_ang=1.25)
    return f"session:steps/maps/{name}.mrc"


def quality(folder: Path, version: int) -> MapQuality:
    curves = {name: [0.5] * 3 for name in ("fsc_error", "fsc_masked", "fsc_randomised")}
    return MapQuality(
        map=volume(folder, "sharpened"),
        mask=volume(folder, "own_mask"),
        picture="session:steps/maps/a.png",
        count=100,
        version=version,
        box_px=8,
        pixel_size_ang=1.25,
        symmetry="D2",
        diameter_ang=5,
        bar_ang=1,
        verdict="map",
        evidence=9,
        resolution_ang=3.2,
        b_factor_ang2=-80,
        **curves,
        **CURVE,
    )


@pytest.fixture
def paper(tmp_path: Path) -> PaperSession:
    folder = tmp_path / "lysozyme"
    folder.mkdir()
    paper = PaperSession(new_session(folder, STEPS, name="lysozyme", acquisition={"pixel_size_ang": 0.8, "voltage_kv": 300}))
    for step, kind in zip(STEPS, ("source", "map", "map", "map"), strict=True):
        paper.revise(step, kind)
    (folder / "raw").mkdir()
    for number in (1, 2, 3):
        unit = paper.expose(f"m{number}", number)
        raw = folder / "raw" / f"m{number}.mrc"
        if number != 3:
            write_mrc(raw, np.zeros((4, 6, 8), np.uint8).astype(np.int16), pixel_size_ang=0.8)
        paper.make(
            "movies", unit, Movie(file=f"raw:m{number}.mrc", n_frames=4, height_px=6, width_px=8, format="mrc", size_bytes=9)
        )
        path = folder / "steps/aligned" / f"m{number}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mrc(path, np.zeros((6, 8), np.float32), pixel_size_ang=0.8)
        motion = Motion(global_yx_px=[(0.0, 0.0)], total_px=0, early_px=0)
        paper.make(
            "aligned",
            unit,
            Micrograph(image=f"session:steps/aligned/m{number}.mrc", height_px=6, width_px=8, bin=1, motion=motion),
        )
    for version in (1, 2):
        half_maps = [volume(folder, f"half{half}_{version}") for half in (1, 2)]
        record = Volume(
            map=volume(folder, f"map_{version}"),
            half_maps=half_maps,
            mask=volume(folder, f"mask_{version}"),
            count=100,
            box_px=8,
            bin=1,
            symmetry="D2",
            resolution_ang=4.0,
            version=version,
            **CURVE,
        )
        paper.publish("refined", version, record)
    (folder / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
    return paper


def checked(folder: Path) -> dict[str, str]:
    lines = (folder / "checksums.sha256").read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def test_a_map_goes_to_the_emdb_with_its_halves_mask_and_correlation(paper: PaperSession, tmp_path: Path) -> None:
    target = tmp_path / "emdb"
    with open_view(paper.session) as view:
        notes = write_emdb_package(view, "refined", target)
    names = ["emd_fsc.xml", "emd_fsc_unmasked.xml", "emd_half_map_1.mrc", "emd_half_map_2.mrc", "emd_map.mrc", "emd_mask_1.mrc"]
    assert sorted(path.name for path in target.iterdir()) == ["checksums.sha256", *names[:0], *sorted([*names, "emdb.json"])]
    assert np.array_equal(read_stack(target / "emd_map.mrc"), read_stack(paper.session.folder / "steps/maps/map_2.mrc"))
    points = parse_xml(target / "emd_fsc.xml", (target / "emd_fsc.xml").read_bytes()).findall("coordinate")
    assert [(float(one.findtext("x") or "nan"), float(one.findtext("y") or "nan")) for one in points] == [
        (0, 1),
        (0.1, 0.9),
        (0.2, 0.1),
    ]
    values = json.loads((target / "emdb.json").read_text(encoding="utf-8"))
    assert (values["resolution_ang"], values["applied_symmetry"], values["number_of_particles"]) == (4.0, "D2", 100)
    assert values["microscope"] == {"pixel_size_ang": 0.8, "voltage_kv": 300}
    assert checked(target)["emd_map.mrc"] == hashlib.sha256((target / "emd_map.mrc").read_bytes()).hexdigest()
    assert len(notes) == 1 and "not sharpened" in notes[0]


def test_what_has_judged_the_map_gives_the_sharpened_one(paper: PaperSession, tmp_path: Path) -> None:
    paper.publish("judged", 1, quality(paper.session.folder, 2))
    target = tmp_path / "emdb"
    with open_view(paper.session) as view:
        assert write_emdb_package(view, "refined", target) == []
        assert write_emdb_package(view, "refined", tmp_path / "first", version=1) != []
    maps = paper.session.folder / "steps/maps"
    assert np.array_equal(read_stack(target / "emd_map.mrc"), read_stack(maps / "sharpened.mrc"))
    assert np.array_equal(read_stack(target / "emd_mask_1.mrc"), read_stack(maps / "own_mask.mrc"))
    assert np.array_equal(read_stack(target / "emd_half_map_1.mrc"), read_stack(maps / "half1_2.mrc"))
    assert json.loads((target / "emdb.json").read_text())["sharpening_b_factor_ang2"] == -80


def test_what_is_no_map_is_refused(paper: PaperSession, tmp_path: Path) -> None:
    folder = paper.session.folder
    with open_view(paper.session) as view:
        with pytest.raises(SessionError, match=r"refined: has no version 7 of a map; there are 1, 2"):
            write_emdb_package(view, "refined", tmp_path / "a", version=7)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "x").touch()
        with pytest.raises(SessionError, match="is there already and not empty"):
            write_emdb_package(view, "refined", tmp_path / "full")
        (folder / "steps/maps/half2_2.mrc").unlink()
        with pytest.raises(SessionError, match=r"half2_2\.mrc: is not there any more"):
            write_emdb_package(view, "refined", tmp_path / "b")
        volume(folder, "half2_2", box=10)
        with pytest.raises(SessionError, match=r"differ in size, which the EMDB refuses: emd_map\.mrc 8 x 8 x 8.*10 x 10 x 10"):
            write_emdb_package(view, "refined", tmp_path / "c")
    noise = Volume(
        map=volume(folder, "n"), half_maps=[volume(folder, "n")] * 2, count=1, box_px=8, bin=1, verdict="none", reason="flat"
    )
    paper.publish("refined", 3, noise)
    paper.publish("judged", 1, noise.model_copy(update={"half_maps": [], "verdict": "map"}))
    with open_view(paper.session) as view:
        with pytest.raises(SessionError, match="version 3 is no map: flat"):
            write_emdb_package(view, "refined", tmp_path / "d")
        with pytest.raises(SessionError, match="have no two half maps"):
            write_emdb_package(view, "judged", tmp_path / "d")


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-1, 1)), max_size=9), st.text("abc<&\"'é", max_size=9))
def test_a_correlation_is_read_again_as_it_was_written(points, title: str) -> None:
    x, y = ([one[axis] for one in points] for axis in (0, 1))
    root = parse_xml(Path("fsc.xml"), fsc_xml(x, y, title=title).encode())
    assert root.get("title") == title
    assert [float(one.text or "nan") for one in root.iter("x")] == pytest.approx(x, abs=1e-6)
    assert [float(one.text or "nan") for one in root.iter("y")] == pytest.approx(y, abs=1e-6)


CODE = r"^(\('T([2-9]|10?)', ''\))|\('OT', '[A-Z0-9 ]+'\)$"
NAME = r"^\('[^0-9!\"£$%^&*()]+', '[^0-9!\"£$%^&*()]+'\)$"


def test_raw_data_go_to_empiar_with_a_description_by_its_schema(paper: PaperSession, tmp_path: Path) -> None:
    about = tmp_path / "about.yaml"
    about.write_text(ABOUT, encoding="utf-8")
    target = tmp_path / "empiar"
    session = paper.session.folder
    done = CliRunner().invoke(app, ["deposit", str(session), "empiar", "--about", str(about), "-o", str(target)])
    assert done.exit_code == 0, done.output
    assert "1 of the 3 files for data/movies are not there any more" in done.output
    said = json.loads((target / "deposition.json").read_text(encoding="utf-8"))
    needed = {
        "title",
        "release_date",
        "experiment_type",
        "authors",
        "corresponding_author",
        "principal_investigator",
        "imagesets",
        "citation",
    }
    assert needed <= said.keys()
    assert [one["name"] for one in said["authors"]] == ["('Chang', 'YW')", "('de la Cruz', 'M')"]
    assert all(re.match(NAME, one["name"]) for one in said["authors"] + said["citation"][0]["authors"])
    movies, micrographs = said["imagesets"]
    assert (movies["directory"], movies["num_images_or_tilt_series"], movies["frames_per_image"]) == ("data/movies", 2, 4)
    assert (movies["image_width"], movies["image_height"], movies["voxel_type"]) == (8, 6, "('T4', '')")
    assert (micrographs["category"], micrographs["voxel_type"], micrographs["pixel_width"]) == ("('T1', '')", "('T7', '')", 0.8)
    keys = ("category", "header_format", "data_format", "voxel_type")
    assert all(re.match(CODE, one[key]) for one in said["imagesets"] for key in keys)
    link = target / "data/movies/m1.mrc"
    assert link.resolve() == session / "raw/m1.mrc" and not link.readlink().is_absolute()
    assert set(checked(target)) == {
        "deposition.json",
        *(f"data/movies/m{n}.mrc" for n in (1, 2)),
        *(f"data/aligned/m{n}.mrc" for n in (1, 2, 3)),
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("title: Lysozyme on graphene", "title: short"), "title: String should have at least 10 characters"),
        (("initials: YW", "initials: Yi"), r"authors\.0\.initials"),
        (("country: DE", "country: Germany"), r"corresponding_author\.country"),
        (("EMD-8000", "8000"), r"emdb_entries\.0"),
        (("principal_investigators: [*me]", ""), "principal_investigators: Field required"),
        (("title:", "titel:"), "titel: Extra inputs are not permitted"),
        (("authors:", "authors: ["), "cannot be read"),
    ],
)
def test_what_the_depositor_forgot_is_named(tmp_path: Path, change, told: str) -> None:
    path = tmp_path / "about.yaml"
    path.write_text(ABOUT.replace(*change), encoding="utf-8")
    with pytest.raises(SessionError, match=told):
        read_about(path)


def test_a_session_without_files_has_nothing_to_deposit(paper: PaperSession, tmp_path: Path) -> None:
    (tmp_path / "about.yaml").write_text(ABOUT, encoding="utf-8")
    for path in [*(paper.session.folder / "raw").iterdir(), *(paper.session.folder / "steps/aligned").iterdir()]:
        path.unlink()
    with (
        open_view(paper.session) as view,
        pytest.raises(SessionError, match="has no movies or micrographs whose files are there"),
    ):
        write_empiar_package(view, read_about(tmp_path / "about.yaml"), tmp_path / "e")


def test_the_command_says_what_it_needs(paper: PaperSession, tmp_path: Path) -> None:
    for archive, told in (("emdb", "needs --step"), ("empiar", "need --about")):
        done = CliRunner().invoke(app, ["deposit", str(paper.session.folder), archive, "-o", str(tmp_path / "x")])
        assert told in done.output
