from pathlib import Path

import pytest

from icestream.files import TemporarySweep, is_temporary, publish, publish_text, temporary_path


def test_a_published_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "image.mrc"
    with publish(target, attempt="abc") as temporary:
        temporary.write_bytes(b"half")
        assert not target.exists()
        assert is_temporary(temporary)
        assert temporary.suffix == ".mrc"
    assert target.read_bytes() == b"half"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "image.mrc"
    publish_text(target, "old")

    def fail() -> None:
        with publish(target) as temporary:
            temporary.write_text("new")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_two_attempts_do_not_touch_each_other(tmp_path: Path) -> None:
    target = tmp_path / "image.mrc"
    assert temporary_path(target, attempt="a") != temporary_path(target, attempt="b")


def test_temporaries_of_dead_attempts_are_swept_and_nothing_else(tmp_path: Path) -> None:
    keep = [tmp_path / "image.mrc", tmp_path / ".hidden", tmp_path / "x.part"]
    for path in keep:
        path.write_text("keep")
    temporary_path(tmp_path / "a" / "image.mrc", attempt="dead").parent.mkdir()
    temporary_path(tmp_path / "a" / "image.mrc", attempt="dead").write_text("orphan")
    running = temporary_path(tmp_path / "a" / "image.mrc", attempt="running")
    running.write_text("half")
    sweep = TemporarySweep(tmp_path)
    assert sweep.go_on(alive={"running"}, seconds=0) == 0  # no time: the runner says first that it lives
    assert sweep.go_on(alive={"running"}, seconds=60) == 1
    assert all(path.exists() for path in keep)
    assert list((tmp_path / "a").iterdir()) == [running]
