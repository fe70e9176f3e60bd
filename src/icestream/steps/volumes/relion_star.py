"""Particles with their poses as a STAR file, which RELION's programs read from the session's folder."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from icestream.flow import Context
from icestream.io.image import image_header
from icestream.io.particles import optics_of_particles
from icestream.io.star import Table, write_star
from icestream.records import Acquisition, FileRef, Particles

_SESSION = "session:"


def publish_star(
    table: NDArray[np.void],
    optics: NDArray[np.void],
    particles: Sequence[Particles],
    acquisition: Acquisition,
    ctx: Context,
) -> FileRef | None:
    """Publish the poses of all particles, or nothing where RELION could not read the images.

    RELION needs bright particles without phase flipping, as float32, in stacks in the session's folder, and a CTF for each; one
    optics group has images that were all multiplied by their CTF, or none.

    Parameters
    ----------
    table, optics
        The poses, and what is known of the CTF of the same particles, ``(n,)`` each.
    particles
        Where the images are.
    acquisition
        Of all of them.
    ctx
        Where to publish.
    """
    stacks = {one.table_key: one.stack for one in particles}
    alike = len({one.ctf_premultiplied for one in particles}) == 1
    if not alike or not all(_is_readable(one, ctx) for one in particles) or not np.isfinite(optics["defocus_u_ang"]).all():
        return None
    first = particles[0]
    pixel_ang = acquisition.need("pixel_size_ang") * first.bin
    names = [str(stacks[key]).removeprefix(_SESSION) for key in table["micrograph"].tolist()]
    columns = {
        "rlnImageName": [f"{number + 1:06d}@{name}" for number, name in zip(table["slice"].tolist(), names, strict=True)],
        "rlnMicrographName": names,
        "rlnOpticsGroup": ["1"] * len(table),
        "rlnRandomSubset": [str(half + 1) for half in table["half"].tolist()],
    }
    numbers = {
        "rlnDefocusU": optics["defocus_u_ang"],
        "rlnDefocusV": optics["defocus_v_ang"],
        "rlnDefocusAngle": optics["astigmatism_angle_deg"],
        "rlnPhaseShift": optics["phase_shift_deg"],
        "rlnAngleRot": table["rot_deg"],
        "rlnAngleTilt": table["tilt_deg"],
        "rlnAnglePsi": table["psi_deg"],
        "rlnOriginXAngst": -table["shift_x_px"] * pixel_ang,
        "rlnOriginYAngst": -table["shift_y_px"] * pixel_ang,
    }
    columns |= {name: [f"{value:.5f}" for value in values.tolist()] for name, values in numbers.items()}
    with ctx.publish("_particles.star") as out:
        tables = {"optics": optics_of_particles(first, acquisition), "particles": Table(columns)}
        write_star(out.path, tables)
    return out.ref


def _is_readable(particles: Particles, ctx: Context) -> bool:
    if not particles.inverted or particles.phase_flipped or not (particles.stack or "").startswith(_SESSION):
        return False
    cutting = particles.cutting
    return (image_header(ctx.path(str(particles.stack))).dtype if cutting is None else cutting.stored_as) == "float32"
