"""Reading the images of particles, wherever a step needs them: by slice from their stack, or cut from the micrograph now."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from icestream.errors import ItemError
from icestream.io.image import read_image, read_stack
from icestream.io.particles import particles_table
from icestream.records import Cutting, FileRef, Particles
from icestream.steps.particles.cutting import cut_particles


class FindsFiles(Protocol):
    """What knows where files are: the context of a step, or who draws particles for people."""

    def path(self, ref: str) -> Path:
        """Return the absolute path of a file named by a record."""


class HasImages(Protocol):
    """What says where the images of particles are: the record `Particles`, or what a step remembers of one."""

    @property
    def stack(self) -> FileRef | None:
        """The stack; unset where images are cut when they are read."""

    @property
    def cutting(self) -> Cutting | None:
        """How they are cut."""

    @property
    def micrograph(self) -> FileRef | None:
        """What they are cut from."""


def read_particles(particles: Particles, ctx: FindsFiles) -> NDArray[np.float32]:
    """Return the images of particles in the order of their table: ``(n, box, box)``.

    Raises
    ------
    ItemError
        The particles have neither a stack nor a way to be cut, or a row names a slice that the stack does not have.
    """
    if not particles.count:
        return np.zeros((0, particles.box_px, particles.box_px), dtype=np.float32)
    return read_images(particles, particles_table(particles), ctx)


def read_images(source: HasImages, table: NDArray[Any], ctx: FindsFiles) -> NDArray[np.float32]:
    """Return the images of the rows of a table: ``(n, box, box)``.

    The rows are any of those of `Particles`, with the columns ``slice`` and, of virtual stacks, ``pid``, the place and the CTF.

    Raises
    ------
    ItemError
        As for `read_particles`.
    """
    if source.stack is None:
        if source.cutting is None or source.micrograph is None:
            raise ItemError(f"{len(table)} particles have neither a stack nor a micrograph to cut them from")
        return cut_particles(read_image(ctx.path(source.micrograph)), table, source.cutting)
    images = read_stack(ctx.path(source.stack))  # (m, box, box)
    slices = table["slice"]
    if len(slices) and not 0 <= slices.min() <= slices.max() < len(images):
        raise ItemError(f"{source.stack}: holds {len(images)} images; its particles ask for {slices.min()} to {slices.max()}")
    whole = len(slices) == len(images) and np.array_equal(slices, np.arange(len(images)))
    return images if whole else images[slices]
