"""The account that runs icestream: its name and its folders, also where it has no name, no home and nothing it may write to."""

import atexit
import getpass
import os
import stat
from pathlib import Path

_KERNELS = "NUMBA_CACHE_DIR"


def user_name() -> str:
    """Return the name of the account; one without a name, as in a container, is called by its number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}"


def expand_home(path: str) -> Path:
    """Return a path with ``~`` written out where that account has a home."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - that of pathlib raises an error where there is no home


def state_folder() -> Path:
    """Return the folder where programs of this account keep their state; a temporary one if the account has no home."""
    given = Path(os.environ.get("XDG_STATE_HOME") or expand_home("~/.local/state"))
    return given if given.is_absolute() else _private_folder()


def prepare_kernel_cache(package: Path) -> None:
    """Let numba keep what it compiled: beside ``package``, in the account's cache, or else in a temporary folder of the account.

    numba itself looks at the first two only, and refuses to load a kernel where it may write to neither.
    """
    given = os.environ.get(_KERNELS)
    if given and Path(given).parent.name != _private_name():
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME", str(expand_home("~/.cache"))))
    if os.access(package, os.W_OK) or (cache.is_absolute() and _may_write(cache)):
        return
    try:
        os.environ[_KERNELS] = str(_private_folder() / "numba")
    except OSError:
        os.environ.pop(_KERNELS, None)


def _may_write(folder: Path) -> bool:
    """Tell whether a folder can be written to, or made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _private_name() -> str:
    return f"icestream-{os.getuid()}"


def _private_folder() -> Path:
    """Return a temporary folder that no other account can write to: what is kept there is trusted.

    Raises
    ------
    OSError
        There is no place for one.
    """
    import shutil  # noqa: PLC0415 - rarely needed, and not to slow down every start
    import tempfile  # noqa: PLC0415

    folder = Path(tempfile.gettempdir()) / _private_name()
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        return folder
    own = Path(tempfile.mkdtemp(prefix=f"{_private_name()}-"))  # somebody else was there first
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own
