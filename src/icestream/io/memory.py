"""What this process has just written, kept in memory so that the next step need not read it back.

Images are known by device, inode, size and modification time of their file: a rename (publishing) keeps them, any other change
of the file forgets them. Nothing depends on an image being here.
"""

import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from icestream.settings import Settings

_Key = tuple[int, int]
_Stamp = tuple[int, int]
_Kept = tuple[_Stamp, NDArray[Any]]


class ImageMemory:
    """Images by file, least recently used first to go.

    Parameters
    ----------
    limit_bytes
        Pixels held at most; 0 remembers nothing.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._images: LRUCache[_Key, _Kept] = LRUCache(limit_bytes, getsizeof=_pixel_bytes)
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of pixels held now."""
        return int(self._images.currsize)

    def remember(self, path: Path, image: NDArray[Any]) -> None:
        """Keep the content of the complete file ``path``; a writable ``image`` is copied, a large one is not kept."""
        if image.nbytes > self._images.maxsize // 2:
            return
        key, stamp = _identity(path)
        kept = image.copy() if image.flags.writeable or image.base is not None else image
        kept.flags.writeable = False
        with self._lock:
            self._images[key] = (stamp, kept)

    def recall(self, path: Path) -> NDArray[Any] | None:
        """Return the read-only content of ``path`` if it was remembered and the file has not changed since."""
        try:
            key, stamp = _identity(path)
        except OSError:
            return None
        with self._lock:
            known = self._images.get(key)
            if known is None:
                return None
            if known[0] != stamp:
                del self._images[key]
                return None
            return known[1]


def _pixel_bytes(kept: _Kept) -> int:
    return kept[1].nbytes


def _identity(path: Path) -> tuple[_Key, _Stamp]:
    status = path.stat()
    return (status.st_dev, status.st_ino), (status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1)
def image_memory() -> ImageMemory:
    """Return the memory of this process, as large as the settings of the machine say."""
    return ImageMemory(Settings().image_memory_mb * 2**20)


def remember(path: Path, image: NDArray[np.generic]) -> None:
    """Keep the content of the complete file ``path`` in the memory of this process."""
    image_memory().remember(path, image)


def recall(path: Path) -> NDArray[Any] | None:
    """Return the read-only content of ``path`` if this process wrote it lately and it has not changed since."""
    return image_memory().recall(path)
