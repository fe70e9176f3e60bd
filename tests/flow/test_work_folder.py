"""Private folders: one for each attempt, gone when it ends, swept when its process died."""

import subprocess
import sys
from pathlib import Path

import pytest

from icestream.flow.execution.work_folder import WorkFolder, sweep_work_folders, work_root

_HOLD = """
import sys
from pathlib import Path
from icestream.flow.execution.work_folder import WorkFolder
print(WorkFolder(Path(sys.argv[1]), sys.argv[2], "step_one").path, flush=True)
sys.stdin.read()
"""


def test_it_is_made_when_asked_for_and_gone_afterwards(tmp_path: Path) -> None:
    with WorkFolder(tmp_path, "a" * 32, "step_one"):
        assert list(tmp_path.iterdir()) == []
    with WorkFolder(tmp_path, "a" * 32, "step_one") as work:
        (work.path / "file").touch()
        assert work.path == tmp_path / "work" / ("a" * 32)
        assert work.path.stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("keep", "cancelled", "left"), [("1", False, ["kept_step_one_aaaaaaaa"]), ("1", True, []), ("0", False, [])]
)
def test_it_is_kept_after_a_failure_if_a_setting_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str, cancelled: bool, left: list[str]
) -> None:
    monkeypatch.setenv("ICESTREAM_KEEP_FAILED_WORK", keep)

    def fail() -> None:
        with WorkFolder(tmp_path, "a" * 32, "step_one", lambda: cancelled) as work:
            (work.path / "file").touch()
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        fail()
    sweep_work_folders(tmp_path / "work")
    assert [path.name for path in (tmp_path / "work").iterdir()] == left


def test_it_may_be_on_a_local_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICESTREAM_SCRATCH", str(tmp_path / "scratch"))
    with WorkFolder(tmp_path / "session", "b" * 32, "step_one") as work:
        assert work.path.parent == work_root(tmp_path / "session", tmp_path / "scratch")
        assert work.path.is_relative_to(tmp_path / "scratch")


def test_a_sweep_takes_what_the_dead_left_and_spares_the_living(tmp_path: Path) -> None:
    held = [
        subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(tmp_path), name * 32], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    folders = [Path(one.stdout.readline().strip()) for one in held if one.stdout is not None]
    assert [folder.is_dir() for folder in folders] == [True, True]
    held[0].kill()
    held[0].communicate()
    assert sweep_work_folders(tmp_path / "work") == 1
    assert [folder.is_dir() for folder in folders] == [False, True]
    held[1].communicate("")
    assert sweep_work_folders(tmp_path / "work") == 1
    assert list((tmp_path / "work").iterdir()) == []
