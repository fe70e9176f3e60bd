"""The process that draws: low in priority, bounded in memory and time, without a store. What it reads may be hostile.

It ends by itself when nobody asks for long, when its server has gone, and when a drawing takes longer than it may.
"""

import contextlib
import os
import resource
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from icestream.algorithms.volumes import resize_volume_3d
from icestream.errors import FileFormatError, IcestreamError, SourceGone
from icestream.flow.declaration import resolve_ref
from icestream.io.blocks import from_block
from icestream.io.density import write_density
from icestream.io.image import image_header, read_image, read_stack
from icestream.io.preview import write_mosaic
from icestream.io.pyramid import write_pyramid
from icestream.observe.drawing.order import Answer, AnyOrder, DensityOrder, MicrographOrder, MosaicOrder, ParticleImages, Task
from icestream.steps.particles.reading import read_images

MEMORY_BYTES = 4 << 30
MOST_PX = 1 << 28
"""So many pixels may an image have, and the images of a stack together: 1 GB as they are drawn."""
IDLE_S = 300.0
NICENESS = 15
PARTICLE_PX = 128
LEAST_MAP_PX = 8


@dataclass(frozen=True)
class Files:
    """The files of a session, none of which is outside of its roots, also not by a link."""

    roots: dict[str, str]

    def path(self, ref: str) -> Path:
        """Return the absolute path of a file named by a record.

        Raises
        ------
        SourceGone
            It is not there.
        SessionError
            It leads out of the roots of the session.
        FileFormatError
            It holds more pixels than are drawn.
        """
        try:
            path = resolve_ref(self.roots, ref).resolve(strict=True)
        except FileNotFoundError:
            raise SourceGone(f"{ref}: the file is not there") from None
        if not any(path.is_relative_to(Path(root).resolve()) for root in self.roots.values()):
            raise FileFormatError(ref, "leads out of the folders of the session")
        header = image_header(path)
        pixels = header.n_images * header.height_px * header.width_px
        if pixels > MOST_PX:
            raise FileFormatError(ref, f"holds {pixels / 1e6:.0f} million pixels; at most {MOST_PX / 1e6:.0f} million are drawn")
        return path


def draw(order: AnyOrder, to: Path) -> None:
    """Draw what is ordered into a file.

    Raises
    ------
    SourceGone
        A file is not there.
    IcestreamError
        A file is damaged, too large, or of another kind, or does not have the images.
    """
    files = Files(order.roots)
    if isinstance(order, MicrographOrder):
        write_pyramid(to, read_image(files.path(order.image)))
    elif isinstance(order, DensityOrder):
        _draw_density(order, files, to)
    else:
        _draw_mosaic(order, files, to)


def _draw_mosaic(order: MosaicOrder, files: Files, to: Path) -> None:
    images = [read_images(one, from_block(one.rows), files) for one in order.parts]  # each (n, box, box)
    if len({some.shape[1:] for some in images}) != 1:
        raise FileFormatError(_names(order.parts), "hold images of different sizes")
    whole = np.concatenate(images)  # (n, box, box)
    write_mosaic(to, whole, columns=min(order.in_a_row, len(whole)), max_px=PARTICLE_PX)


def _draw_density(order: DensityOrder, files: Files, to: Path) -> None:
    path = files.path(order.map)
    volume, pixel_ang = read_stack(path), image_header(path).pixel_size_ang  # (z, y, x)
    size = volume.shape[0]
    if volume.shape != (size, size, size) or size < LEAST_MAP_PX:
        raise FileFormatError(
            order.map, f"is no cube of at least {LEAST_MAP_PX} voxels, but {' x '.join(map(str, volume.shape))}"
        )
    even = volume[: size - size % 2, : size - size % 2, : size - size % 2]
    side = min(order.side, len(even))
    write_density(
        to, resize_volume_3d(even, new_size=side), voxel_ang=None if pixel_ang is None else pixel_ang * len(even) / side
    )


def _names(parts: tuple[ParticleImages, ...]) -> str:
    return ", ".join(dict.fromkeys(one.file for one in parts))


def answer(task: Task) -> Answer:
    """Draw, and say what is wrong if it cannot be."""
    try:
        draw(task.order, Path(task.to))
    except SourceGone as error:
        return Answer(trouble=_without_roots(str(error), task.order.roots), missing=True)
    except IcestreamError as error:
        return Answer(trouble=_without_roots(str(error), task.order.roots))
    except MemoryError:
        return Answer(trouble="this takes more memory than a drawing may have", passing=True)
    except OSError as error:
        return Answer(trouble=f"a file cannot be read or written: {error.strerror}", passing=True)
    return Answer()


def _without_roots(text: str, roots: dict[str, str]) -> str:
    """Name files as records do: where a session is on the machine is nobody's business who only looks."""
    for name, root in sorted(roots.items(), key=lambda one: -len(one[1])):
        for known in dict.fromkeys((root, os.path.realpath(root))):
            text = text.replace(known.rstrip("/") + "/", f"{name}:")
    return text


def serve(connection: "Connection[Any, Any]", *, idle_s: float = IDLE_S) -> None:
    """Draw what is asked for until nobody asks any more."""
    with contextlib.suppress(EOFError, ConnectionError):  # the server has gone
        while connection.poll(idle_s):
            task = Task.model_validate_json(connection.recv_bytes())
            signal.alarm(task.limit_s)  # ends the process, even if its server is no longer there to do so
            said = answer(task)
            signal.alarm(0)
            connection.send_bytes(said.model_dump_json().encode())


def limit_process() -> None:
    """Take little of the machine: after everybody else, with bounded memory, leaving no image of a crash behind."""
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches the whole group of the server, whose end is noticed


if __name__ == "__main__":
    limit_process()
    handle = int(sys.argv[1])
    os.set_inheritable(handle, False)
    serve(Connection(handle))
