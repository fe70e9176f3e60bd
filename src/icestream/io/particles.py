"""Tables of particles: a part of them refers to the same stack; what was removed, and why, is kept beside what is left."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.io.picks import first_reason
from icestream.io.star import Table
from icestream.records import Acquisition, Particles, Removed


def particles_table(particles: Particles) -> NDArray[Any]:
    """Return the table of particles with all its columns: where it was stored without slices, row i is slice i."""
    return with_slices(from_block(particles.block))


def optics_of_particles(particles: Particles, acquisition: Acquisition) -> Table:
    """Return RELION's optics group of particles that are all cut like these, as the only one of a list.

    Raises
    ------
    ItemError
        An acquisition value is unset.
    """
    group = {
        "rlnOpticsGroup": "1",
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnImagePixelSize": f"{acquisition.need('pixel_size_ang') * particles.bin:.6f}",
        "rlnImageSize": str(particles.box_px),
        "rlnImageDimensionality": "2",
        "rlnVoltage": f"{acquisition.need('voltage_kv'):g}",
        "rlnSphericalAberration": f"{acquisition.need('cs_mm'):g}",
        "rlnAmplitudeContrast": f"{acquisition.need('amplitude_contrast'):g}",
        "rlnCtfDataAreCtfPremultiplied": str(int(particles.ctf_premultiplied)),
    }
    return Table({name: [value] for name, value in group.items()})


def remove_particles(
    particles: Particles, removed: Mapping[str, NDArray[np.bool_]], *, no_particle: Collection[str] = ()
) -> Particles:
    """Return particles without those that are removed, which it keeps beside them; numbers and images stay where they are.

    What an earlier step removed stays with that step.

    Parameters
    ----------
    removed
        Reason → which rows ``(n,)`` it removes, in plain words, as ``{"empty": mask}``. A row that several reasons remove counts
        for the first of them. Every reason that was asked is told, also where it removed nothing.
    no_particle
        Those of the reasons that say that there is no particle: a picker may learn from them.

    Raises
    ------
    ValueError
        A mask is not of as many rows as the table.
    """
    table = particles_table(particles)
    code = first_reason(removed, len(table))  # (n,)
    rejected = np.zeros(int((code >= 0).sum()), dtype=dtype_of(Particles.further_columns["rejected"]))
    for name in table.dtype.names or ():
        rejected[name] = table[name][code >= 0]
    rejected["reason"] = code[code >= 0]
    reasons = tuple(
        Removed(reason=reason, count=int((code == number).sum()), no_particle=reason in no_particle)
        for number, reason in enumerate(removed)
    )
    return with_rows(particles, table[code < 0]).model_copy(
        update={
            "n_removed": len(rejected),
            "removed": reasons,
            "rejected": to_block(rejected) if len(rejected) else None,
        }
    )


def with_rows(particles: Particles, table: NDArray[Any]) -> Particles:
    """Return particles with other rows of the same stack, and nothing beside them; what they were before is not counted again."""
    rows = np.zeros(len(table), dtype=dtype_of(Particles.block_columns))
    for name in rows.dtype.names or ():
        rows[name] = table[name]
    nothing = {"n_left_out": 0, "n_padded": 0, "n_removed": 0, "removed": (), "rejected": None}
    return particles.model_copy(update={**nothing, "count": len(rows), "block": to_block(rows)})


def removed_particles_table(particles: Particles) -> NDArray[Any]:
    """Return the particles that a step removed: the columns of the table, and ``reason``, which is a row of ``removed``."""
    if particles.rejected is None:
        return np.zeros(0, dtype=dtype_of(Particles.further_columns["rejected"]))
    return from_block(particles.rejected)


def with_slices(stored: NDArray[Any]) -> NDArray[Any]:
    """Return a table of particles with the column ``slice``: where it was stored without, row i is slice i."""
    if "slice" in (stored.dtype.names or ()):
        return stored
    table = np.zeros(len(stored), dtype=[*stored.dtype.descr, ("slice", "<i4")])
    for name in stored.dtype.names or ():
        table[name] = stored[name]
    table["slice"] = np.arange(len(stored))
    return table
