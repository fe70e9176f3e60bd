"""Bringing images of the session into a project of another program: by a relative link, or as a copy."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.files import publish
from icestream.flow import Context
from icestream.io.image import write_mrc
from icestream.io.particles import particles_table
from icestream.records import Particles
from icestream.steps.particles.reading import read_particles


def place_file(source: Path, target: Path, *, copy: bool) -> None:
    """Make ``target`` a relative link to ``source``, or a copy of it; what is there already stays."""
    if copy:
        if not target.is_file() or target.stat().st_size != source.stat().st_size:
            with publish(target) as temporary:
                shutil.copyfile(source, temporary)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    link = os.path.relpath(source.resolve(), target.parent.resolve())
    if not (target.is_symlink() and str(target.readlink()) == link):
        target.unlink(missing_ok=True)
        target.symlink_to(link)


def place_particles(particles: Particles, target: Path, ctx: Context, *, copy: bool, pixel_size_ang: float) -> NDArray[Any]:
    """Make ``target`` the stack of particles; a virtual one is written. Return their table, whose slices keep their numbers."""
    table = particles_table(particles).copy()
    if particles.stack is not None:
        place_file(ctx.path(particles.stack), target, copy=copy)
        return table
    target.parent.mkdir(parents=True, exist_ok=True)
    images = np.zeros((int(table["slice"].max(initial=-1)) + 1, particles.box_px, particles.box_px), np.float32)
    images[table["slice"]] = read_particles(particles, ctx)  # classes find their particles by these numbers
    with publish(target) as temporary:
        write_mrc(temporary, images, pixel_size_ang=pixel_size_ang, remember=False)
    return table
