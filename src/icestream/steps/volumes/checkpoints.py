"""What a long step keeps of its work for a later attempt, until its result is there."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from icestream.files import publish, sync_folder

Kept = TypeVar("Kept")


def read_kept(path: Path, read: Callable[[Path], Kept]) -> Kept | None:
    """Return what ``read`` makes of a checkpoint; nothing where it is missing, empty, cut off, or lacks a part.

    ``read`` says what is wrong with it as ``np.load`` and `load_arrays` do.
    """
    try:
        return read(path)
    except (FileNotFoundError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def keep_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as a checkpoint."""
    with publish(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)


def keep_arrays(path: Path, **arrays: Any) -> None:
    """Write several arrays as a checkpoint."""
    with publish(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **arrays)


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return what `keep_arrays` wrote; errors are those of ``np.load``, which leaves a file open that is no archive."""
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def forget(folder: Path) -> None:
    """Remove a folder of checkpoints as a whole: whatever stops this, no later attempt finds a part of it."""
    gone = folder.with_name(f"{folder.name}.gone")
    if gone.exists():
        shutil.rmtree(gone)
    folder.rename(gone)
    sync_folder(gone.parent)
    shutil.rmtree(gone)
