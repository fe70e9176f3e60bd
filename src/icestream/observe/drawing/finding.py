"""What is to be drawn, found in the store by keys: nothing that a browser sends becomes a path."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from icestream.flow.storage import RemovedFile, find_removed, is_there, schema
from icestream.io.blocks import from_block, to_block
from icestream.io.particles import particles_table
from icestream.observe.drawing.order import MicrographOrder, MosaicOrder, NothingToDraw, ParticleImages
from icestream.observe.queries import SessionView, StoredRecord
from icestream.observe.values import field_at
from icestream.observe.wholes import gives_assignments
from icestream.records import Particles, Shown

PAGE = 100
"""Particles on one picture."""
IN_A_ROW = 10
MEMBERS = 64
MEMBERS_IN_A_ROW = 8
MOST_EXPOSURES = 24
"""The newest members are looked for in so many exposures that have some."""
MOST_LOOKED_AT = 300


def find_micrograph(view: SessionView, key: str) -> MicrographOrder:
    """Return what shows the image of a record in full resolution.

    Raises
    ------
    NothingToDraw
        No result has this key, or its record declares no such image, or has none.
    """
    name, record = _result(view, key)
    ref = full_image(view.catalog().shown(name), record)
    if ref is None:
        raise NothingToDraw("the record has no image in full resolution")
    return MicrographOrder(roots=view.session.roots, key=key, image=ref)


def full_image(shown: Shown, record: Mapping[str, Any]) -> str | None:
    """Return the file of the image of a record, where it declares one and has it."""
    ref = field_at(record, shown.image.full) if shown.image is not None and shown.image.full else None
    return str(ref) if ref else None


def find_particles(view: SessionView, key: str, page: int) -> MosaicOrder:
    """Return what shows some of the particles of a record, in the order of its table; pages count from 0.

    Raises
    ------
    NothingToDraw
        No result has this key, it is none of particles, it says nowhere where their images are, or there is no such page.
    """
    name, record = _result(view, key)
    particles = _particles(name, record, view.tables(key))
    if particles is None or count_of_images(name, record) == 0:
        raise NothingToDraw("the record has no images of particles")
    rows = particles_table(particles)[page * PAGE : (page + 1) * PAGE]  # (n,)
    if not len(rows):
        raise NothingToDraw(f"page {page} has no particles: there are {particles.count}")
    return MosaicOrder(roots=view.session.roots, parts=(_images(key, particles, rows),), in_a_row=IN_A_ROW)


def count_of_images(name: str, record: Mapping[str, Any]) -> int:
    """Return of how many particles a record has, or can cut, images."""
    if name != Particles.stored_name or not (record.get("stack") or record.get("cutting")):
        return 0
    return int(record.get("count") or 0)


def find_members(view: SessionView, step: str, part: int) -> MosaicOrder:
    """Return what shows the newest particles that were assigned to a class when they came, the newest exposures first.

    Particles whose images were removed to free the disk are left out.

    Raises
    ------
    NothingToDraw
        The step assigns no particles, or none to this class whose images are there.
    """
    if not gives_assignments(view, step):
        raise NothingToDraw(f"{step!r}: is no step of this session that assigns particles to classes")
    wanted: dict[str, np.ndarray[Any, Any]] = {}
    n_wanted = 0
    for record in view.records(step, output="assignments", newest_first=True, limit=MOST_LOOKED_AT):
        if len(wanted) == MOST_EXPOSURES or n_wanted >= MEMBERS:
            break
        table = None if record.block is None else from_block(record.block)
        pids = () if table is None else table["pid"][table["class_id"] == part]  # (n,)
        if len(pids):
            wanted[record.unit] = np.asarray(pids)
            n_wanted += len(pids)
    parts, left = [], MEMBERS
    for unit, stored in _particles_of(view, step, list(wanted)).items():
        particles = _particles(stored.record_type, stored.record, stored.tables)
        table = None if particles is None else particles_table(particles)
        rows = () if table is None else table[np.isin(table["pid"], wanted[unit])][:left]  # (n,)
        if particles is not None and len(rows):
            parts.append(_images(stored.key, particles, np.asarray(rows)))
            left -= len(rows)
    if not parts:
        raise NothingToDraw(f"no images are there of the newest members of class {part}")
    return MosaicOrder(roots=view.session.roots, parts=tuple(parts), in_a_row=MEMBERS_IN_A_ROW)


def say_what_was_removed(view: SessionView, order: MicrographOrder | MosaicOrder, why: str) -> str:
    """Return why something cannot be drawn, in better words where its files were removed to free the disk."""
    removed = _removed(view, order.files)
    if not removed:
        return why
    undone = any(one.state in ("moving", "trash") for one in removed)
    how = "the removal can be undone on the page of storage" if undone else "it is computed again when a step needs it"
    return f"{removed[0].ref} was removed to free the disk; {how}"


def _result(view: SessionView, key: str) -> tuple[str, dict[str, Any]]:
    found = view.result(key)
    if found is None:
        raise NothingToDraw("no result has this key")
    return found


def _particles(name: str, record: Mapping[str, Any], tables: Mapping[str, bytes]) -> Particles | None:
    """Return the record of particles that is stored; None where it is another one, or of a version that is not known here."""
    if name != Particles.stored_name:
        return None
    try:
        return Particles.model_validate({**record, **tables})
    except ValidationError:
        return None


def _images(key: str, particles: Particles, rows: "np.ndarray[Any, Any]") -> ParticleImages:
    return ParticleImages(
        key=key, stack=particles.stack, micrograph=particles.micrograph, cutting=particles.cutting, rows=to_block(rows)
    )


def _particles_of(view: SessionView, step: str, units: list[str]) -> dict[str, StoredRecord]:
    """Return the particles of exposures, in their order, from the nearest step above that has them.

    Those whose files were removed are left out.
    """
    upstream, found = list(view.inputs(step)), dict[str, StoredRecord]()
    for name in upstream:
        missing = [unit for unit in units if unit not in found]
        if missing:
            of = view.records_of(name, missing)
            found |= {unit: one for unit, one in of.items() if count_of_images(one.record_type, one.record)}
            upstream.extend(one for one in view.inputs(name) if one not in upstream)
    files = {unit: str(one.record.get("stack") or one.record.get("micrograph")) for unit, one in found.items()}
    away = {one.ref for one in _removed(view, files.values())}
    return {unit: found[unit] for unit in units if unit in found and files[unit] not in away}


def _removed(view: SessionView, refs: Iterable[str]) -> list[RemovedFile]:
    with view.reading() as connection:
        if connection is None or not is_there(connection, schema.removed_file):  # an older version removed nothing
            return []
        return find_removed(connection, refs)
