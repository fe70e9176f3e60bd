"""An account without a name, without a home, and without anything that it may write to."""

import getpass
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from icestream.account import expand_home, prepare_kernel_cache, state_folder, user_name

_STRANGER = 54321
"""A number that no account has."""
_MY_UID = os.getuid()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No home and no name; return the folder of temporary files."""
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: _STRANGER)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(tmp_path / f"{prefix}x"))
    return tmp_path


def writable_only(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    """Play an account that may write to one folder."""
    monkeypatch.setattr(os, "access", lambda path, _mode: folder is not None and Path(path).is_relative_to(folder))


def test_a_number_without_a_name_is_a_name(nobody: Path) -> None:
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    assert user_name() == f"uid {_STRANGER}"


def test_a_home_that_is_missing_is_no_error(nobody: Path) -> None:
    assert expand_home("~/templates") == Path("~/templates")
    assert expand_home("~no_such_account/x") == Path("~no_such_account/x")
    assert state_folder().parent == nobody


def test_a_home_that_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/eva")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert (expand_home("~/x"), state_folder()) == (Path("/home/eva/x"), Path("/home/eva/.local/state"))


def test_kernels_are_kept_where_numba_keeps_them_if_that_can_be_written(
    nobody: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package, home = tmp_path / "package", tmp_path / "home"
    for folder in (package, home):
        folder.mkdir()
    writable_only(monkeypatch, package)
    prepare_kernel_cache(package)
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setenv("HOME", str(home))
    writable_only(monkeypatch, home)
    prepare_kernel_cache(package)
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/lab/kernels")
    writable_only(monkeypatch, None)
    prepare_kernel_cache(package)
    assert os.environ["NUMBA_CACHE_DIR"] == "/lab/kernels"


@pytest.mark.parametrize("home", [None, "/proc/home", "/dev/null/home"])
def test_kernels_are_kept_in_a_folder_of_the_account_if_nothing_else_can_be_written(
    home: str | None, nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: _MY_UID)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    writable_only(monkeypatch, None)
    prepare_kernel_cache(nobody)
    kept = Path(os.environ["NUMBA_CACHE_DIR"])
    assert kept.parent == nobody / f"icestream-{os.getuid()}"
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    prepare_kernel_cache(nobody)  # as in a worker, which inherits it
    assert os.environ["NUMBA_CACHE_DIR"] == str(kept)


def _as_link(folder: Path) -> None:
    folder.symlink_to("/")


def _open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


@pytest.mark.parametrize("prepare", [_as_link, _open_to_all])
def test_compiled_code_is_never_taken_from_a_folder_of_others(
    prepare: Callable[[Path], None], nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: _MY_UID)
    prepare(nobody / f"icestream-{os.getuid()}")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(nobody / f"icestream-{os.getuid()}" / "numba"))
    writable_only(monkeypatch, None)
    prepare_kernel_cache(nobody)
    assert Path(os.environ["NUMBA_CACHE_DIR"]) == nobody / f"icestream-{os.getuid()}-x" / "numba"


def test_a_stranger_without_a_home_runs_kernels() -> None:
    if _MY_UID != 0:
        pytest.skip("only root can become an account without a name")
    code = (
        f"import os, shutil, tempfile, getpass, numba, pydantic_settings, psutil, icestream.logs; os.setuid({_STRANGER}); "
        "from pathlib import Path; from icestream.account import prepare_kernel_cache, user_name; "
        "prepare_kernel_cache(Path('x')); numba.config.reload_config(); from icestream.io.lzw import decode_lzw; "
        "from icestream.settings import Settings; "
        "print(Settings().state, user_name())"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        environment = {"PATH": os.defpath, "TMPDIR": folder}
        told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (told.stdout, told.stderr) == (f"{folder}/icestream-{_STRANGER}/icestream uid {_STRANGER}\n", "")
