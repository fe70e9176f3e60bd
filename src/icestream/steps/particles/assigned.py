"""Which class and pose a classification gave to particles: what it says of them now, or what they were given as they came."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.flow import Context, ItemError
from icestream.io.blocks import from_block
from icestream.io.particles import particles_table
from icestream.records import ClassAssignments, ClassAverages, Particles, same_picks


def find_assignments(averages: ClassAverages, particles: Particles, ctx: Context) -> NDArray[np.void] | None:
    """Return what averages say of the particles of one exposure, with class ids; None where they know nothing of them."""
    if averages.index is None:
        return None
    index = np.load(ctx.path(averages.index), mmap_mode="r", allow_pickle=False)
    key = particles.table_key
    at = int(np.searchsorted(index["micrograph"], key))
    if at >= len(index) or index["micrograph"][at] != key:
        return None
    row = index[at]
    rows = np.load(ctx.path(averages.tables[int(row["table"])]), mmap_mode="r", allow_pickle=False)
    mine = np.array(rows[int(row["start"]) : int(row["start"] + row["count"])])
    mine["class_id"] = np.array([info.id for info in averages.classes], dtype=np.int32)[mine["class_id"]]
    return mine


def newest_rows(
    particles: Particles, assignments: ClassAssignments | None, averages: ClassAverages | None, ctx: Context
) -> NDArray[Any] | None:
    """Return the newest assignment of each particle, in the order of their table; None where no classification is given.

    It is that of the averages where they know the particles, otherwise what these were given as they came.

    Raises
    ------
    ItemError
        The assignments are of particles that other picks numbered.
    """
    stored = None if averages is None else find_assignments(averages, particles, ctx)
    if stored is None and assignments is not None:
        if not same_picks(particles.picks_key, assignments.picks_key):
            raise ItemError(
                f"{ctx.exposure.name}: the assignments are of the particles of other picks; link those of the same particles"
            )
        stored = from_block(assignments.block)
    return None if stored is None else rows_of(particles_table(particles)["pid"], stored)


def rows_of(pids: NDArray[np.integer[Any]], known: NDArray[Any]) -> NDArray[Any]:
    """Return the rows of a table of assignments in the order of ``pids``; one that it lacks has class -1 and no shift."""
    rows = np.zeros(len(pids), dtype=known.dtype)
    rows["pid"], rows["class_id"] = pids, -1
    order = np.argsort(known["pid"], kind="stable")
    at = np.searchsorted(known["pid"], pids, sorter=order)
    found = at < len(known)
    found[found] = known["pid"][order[at[found]]] == pids[found]
    rows[found] = known[order[at[found]]]
    return rows
