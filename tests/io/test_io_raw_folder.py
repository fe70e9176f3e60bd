"""What may be taken from a folder of raw data: through links, around sessions, and what is said of the rest."""

import os
from pathlib import Path

import pytest

from icestream.io.other_images import name_of_other
from icestream.io.raw_folder import RawFolder

MOVIES = frozenset({".mrc"})


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(root: Path, pattern: str = "**/*") -> list[str]:
    return [path.relative_to(root).as_posix() for path in RawFolder(root, pattern, MOVIES).scan().files]


def test_folders_that_are_links_are_followed_once_and_never_back(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    make(root, "real/a.mrc", ".store/b.mrc")
    make(outside, "grid/c.mrc")
    (root / "latest").symlink_to("real")
    (root / "loop").symlink_to(".")
    (root / "up").symlink_to(tmp_path)
    (root / "square").symlink_to(outside / "grid")
    (root / "square2").symlink_to(outside / "grid")
    (root / "stored").symlink_to(".store")
    scan = RawFolder(root, "**/*", MOVIES).scan()
    assert names(root) == ["real/a.mrc", "square/c.mrc", "stored/b.mrc"]
    assert {path.name: reason for path, reason in scan.left_out.items()} == {
        "latest": "it is a link to real, which is found itself",
        "loop": "it is a link that leads back",
        "up": "it is a link that leads back",
        "square2": "another link leads to the same folder",
    }
    assert scan.linked == [root / "square", root / "square2", root / "stored"]


def test_a_link_to_a_file_is_taken_unless_the_file_is_found_itself(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make(root, "a.mrc", "raw/b.mrc")
    make(tmp_path, "elsewhere/c.mrc")
    (root / "latest.mrc").symlink_to("a.mrc")
    (root / "c.mrc").symlink_to(tmp_path / "elsewhere" / "c.mrc")
    assert names(root) == ["a.mrc", "c.mrc", "raw/b.mrc"]
    (root / "chosen").mkdir()
    (root / "chosen" / "b.mrc").symlink_to(root / "raw" / "b.mrc")
    assert names(root, "chosen/*.mrc") == ["chosen/b.mrc"]  # the pattern does not find the file itself


def test_sessions_and_links_into_them_are_never_raw_data(tmp_path: Path) -> None:
    root = tmp_path / "data"
    make(root, "a.mrc", "proc/session.yaml", "proc/steps/motion/1/a.mrc", "proc/exports/x/a.mrc")
    make(tmp_path, "other/session.yaml", "other/steps/b.mrc")
    (root / "results").symlink_to("proc/steps")
    (root / "b.mrc").symlink_to(tmp_path / "other" / "steps" / "b.mrc")
    scan = RawFolder(root, "**/*", MOVIES).scan()
    assert scan.files == [root / "a.mrc"]
    assert sorted(path.name for path in scan.left_out) == ["b.mrc", "proc", "results"]
    make(root, "session.yaml", "steps/motion/1/a.mrc", "movies/m.mrc")  # a session in the folder of its data
    assert names(root) == ["a.mrc", "movies/m.mrc"]
    assert names(root / "movies") == ["m.mrc"]


@pytest.mark.parametrize("pattern", ["b_1/movies/*.mrc", "b_1/movies/a.mrc", "linked/*.mrc", "linked/a.mrc", "b_*/movies/*.mrc"])
def test_a_pattern_leads_into_no_session(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "b_1" / "movies").mkdir(parents=True)
    (tmp_path / "b_1" / "session.yaml").touch()
    (tmp_path / "b_1" / "movies" / "a.mrc").touch()
    (tmp_path / "linked").symlink_to(tmp_path / "b_1" / "movies")
    scan = RawFolder(tmp_path, pattern).scan()
    assert (scan.files, {"session" in reason for reason in scan.left_out.values()}) == ([], {True})
    own = RawFolder(tmp_path / "b_1", "movies/*.mrc").scan()
    assert [path.name for path in own.files] == ["a.mrc"]  # a session that is given its own folder is asked for it


def test_a_pattern_says_where_to_look(tmp_path: Path) -> None:
    make(tmp_path, "gain.mrc", "deep/er/gain.mrc", "deep/a.mrc", "gain[1].mrc")
    assert names(tmp_path, "gain.mrc") == ["gain.mrc"]
    assert names(tmp_path, "gain[[]1].mrc") == ["gain[1].mrc"]
    assert names(tmp_path, "deep/er/*.mrc") == ["deep/er/gain.mrc"]
    assert RawFolder(tmp_path, "deep/er/*.mrc").base == tmp_path / "deep" / "er"
    assert RawFolder(tmp_path, "gain.mrc").single_file == tmp_path / "gain.mrc"
    assert RawFolder(tmp_path, "gain.mrc").base == tmp_path
    assert RawFolder(tmp_path, "**/*.mrc").base == tmp_path


def test_one_file_is_looked_for_without_reading_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "gain.mrc", "thousands/of/others.mrc")

    def refuse(path: object) -> None:
        raise AssertionError(f"{path} was listed")

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(tmp_path, "gain.mrc") == ["gain.mrc"]
    assert names(tmp_path, "not_yet.mrc") == []


def test_what_is_refused_or_does_not_fit_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.mrc", "b.txt", "locked/c.mrc")
    real = os.scandir

    def scan_but_one(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scan_but_one)
    scan = RawFolder(tmp_path, "*.tif", MOVIES).scan()
    assert (scan.files, scan.others, scan.example) == ([], 2, tmp_path / "a.mrc")
    assert list(scan.troubles) == [tmp_path / "locked"]
    assert list(RawFolder(tmp_path / "gone").scan().troubles) == [tmp_path / "gone"]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("FoilHole_1_Data_2_3_20200101_101010.mrc", False),
        ("again_001.mrc", False),
        ("bargain.tif", False),
        ("20201010_gain.tiff", True),
        ("EER_GainReference_x.tif", True),
        ("CountRef_May8.dm4", True),
        ("SuperRef_x.mrc", True),
        ("GridSquare_123_20200101.mrc", True),
        ("FoilHole_123_20200101_101010.mrc", True),
        ("Atlas_1.mrc", True),
    ],
)
def test_references_and_overviews_are_known_by_their_names(name: str, other: bool) -> None:
    assert (name_of_other(Path(name)) is not None) is other
