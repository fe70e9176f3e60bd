"""Decoding the next frame while the last one is being used."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray


def decode_ahead(frames: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Yield ``frames`` in order, computing one ahead in a thread; never more than two are held."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as pool:
        pending = pool.submit(next, frames, None)
        while (frame := pending.result()) is not None:
            pending = pool.submit(next, frames, None)
            yield frame
