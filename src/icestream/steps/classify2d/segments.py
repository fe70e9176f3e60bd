"""The particles of a classification on disk: small prepared images, and a table with the newest assignment of each.

Particles are kept in segments, one for each call that brought some. The images of a segment are written once, at the working size
and with 16 bits; its table is written again whenever its particles were looked at again. Both are read in pieces, so memory does
not grow with the session.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import fft

from icestream.algorithms.classify2d import Assignment, Setting, prepare_particles_2d
from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.fourier import resize_spectrum_2d, shift_spectrum_2d
from icestream.algorithms.scoring import PolarGrid, PolarParticles, ctf_polar_2d
from icestream.flow import Context, ItemError
from icestream.io.particles import particles_table
from icestream.records import CTF_COLUMNS, POSE, Acquisition, FileRef, Particles, Record
from icestream.steps.particles.reading import read_particles

OPTICS = tuple(column.name for column in CTF_COLUMNS)
_SCOPE = ("voltage_kv", "cs_mm", "amplitude_contrast")
TABLE = np.dtype(
    [
        ("micrograph", "S32"),
        ("exposure", "S32"),
        ("pid", "<i8"),
        ("slice", "<i4"),
        ("half", "i1"),
        ("sign", "i1"),
        ("flipped", "?"),
        ("multiplied", "?"),
        *((name, "<f4") for name in (*OPTICS, *_SCOPE)),
        *((column.name, f"<{column.dtype}") for column in POSE),
        ("probability", "<f4"),
        ("amplitude", "<f4"),
        ("residual", "<f4"),
        ("version", "<i4"),
    ]
)
"""One particle: where it is from, its optics, its newest assignment.

``micrograph`` and ``pid`` name it: `Particles.table_key`, which is made of the exposure and its picks (once the micrograph).
``class_id`` is the place of the class here, -1 before.
"""

AT_ONCE = 1000
"""Particles in memory at a time."""


class Segment(Record):
    """Particles that came together; ``counts`` are those in the class at each place."""

    images: FileRef
    table: FileRef
    count: int = Field(ge=1)
    version: int = Field(0, description="That looked at them last")
    counts: list[int] = Field(default_factory=list)


@dataclass(frozen=True)
class Prepared:
    """Particles as they are kept: images ``(n, size, size)`` and table ``(n,)``."""

    images: NDArray[np.float16]
    table: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.table)


def prepare(
    particles: Particles, acquisition: Acquisition, *, size: int, name: str, exposure_id: str, ordinal: int, ctx: Context
) -> Prepared:
    """Read the particles of one exposure and bring them to ``size``.

    Raises
    ------
    ItemError
        An acquisition value is unset, or the particles have no images.
    """
    rows = particles_table(particles)
    if len(rows) != particles.count:
        raise ItemError(f"{name}: has a table of {len(rows)} particles, its record says {particles.count}")
    table = np.zeros(len(rows), dtype=TABLE)
    table["micrograph"], table["exposure"] = particles.table_key, exposure_id.encode()
    table["pid"], table["slice"] = rows["pid"], rows["slice"]
    table["half"] = (np.arange(len(rows)) + ordinal) % 2
    table["sign"] = 1 if particles.inverted else -1
    table["flipped"], table["multiplied"] = particles.phase_flipped, particles.ctf_premultiplied
    for column in OPTICS:
        table[column] = rows[column]
    for column in _SCOPE:
        table[column] = acquisition.need(column)
    table["class_id"], table["score"] = -1, np.nan
    images = shrink_2d(read_particles(particles, ctx), size=size)  # (n, size, size)
    return Prepared(images.astype(np.float16), table)


def shrink_2d(images: NDArray[Any], *, size: int) -> NDArray[np.float32]:
    """Bring images to ``size`` by Fourier cropping, with the centre at ``size // 2``: ``(n, size, size)``."""
    box = images.shape[-1]
    spectra = resize_spectrum_2d(fft.rfft2(np.asarray(images, np.float32)), shape=(box, box), new_shape=(size, size))
    offset = size // 2 - (box // 2) * size / box
    if offset:
        spectra = shift_spectrum_2d(spectra, (offset, offset), width=size)
    small: NDArray[np.float32] = fft.irfft2(spectra, s=(size, size)).astype(np.float32)
    return small


def write_segment(prepared: Prepared, *, suffix: str, ctx: Context) -> Segment:
    """Publish particles that were prepared."""
    with ctx.publish(f"_{suffix}_images.npy") as images, images.path.open("wb") as handle:
        np.save(handle, prepared.images, allow_pickle=False)
    return Segment(images=images.ref, table=_write_table(prepared.table, suffix, ctx), count=len(prepared))


def rewrite_table(
    segment: Segment, table: NDArray[np.void], *, n_classes: int, version: int, suffix: str, ctx: Context
) -> Segment:
    """Publish the table of a segment again, after its particles were looked at."""
    counts = np.bincount(table["class_id"], minlength=n_classes)
    changes = {
        "table": _write_table(table, suffix, ctx),
        "version": version,
        "counts": [int(count) for count in counts],
    }
    return segment.model_copy(update=changes)


def _write_table(table: NDArray[np.void], suffix: str, ctx: Context) -> FileRef:
    with ctx.publish(f"_{suffix}_table.npy") as out, out.path.open("wb") as handle:
        np.save(handle, table, allow_pickle=False)
    return out.ref


def read_table(segment: Segment, ctx: Context) -> NDArray[np.void]:
    """Return the table of a segment, to be changed at will."""
    table: NDArray[np.void] = np.load(ctx.path(segment.table), allow_pickle=False)
    return table


def pieces(segment: Segment, table: NDArray[np.void], ctx: Context, *, most: int = AT_ONCE) -> Iterator[tuple[slice, Prepared]]:
    """Give the particles of a segment piece by piece, with where they are in it."""
    images = np.load(ctx.path(segment.images), mmap_mode="r", allow_pickle=False)
    for start in range(0, len(table), most):
        rows = slice(start, min(start + most, len(table)))
        yield rows, Prepared(np.array(images[rows]), table[rows])


def take(segment: Segment, rows: NDArray[np.int64], ctx: Context) -> Prepared:
    """Return some particles of a segment."""
    images = np.load(ctx.path(segment.images), mmap_mode="r", allow_pickle=False)
    return Prepared(np.array(images[rows]), read_table(segment, ctx)[rows])


def join(parts: Sequence[Prepared]) -> Prepared:
    """Return the particles of all parts."""
    return Prepared(np.concatenate([part.images for part in parts]), np.concatenate([part.table for part in parts]))


def sample_polar(prepared: Prepared, *, setting: Setting, box_ang: float) -> PolarParticles:
    """Make particles ready for comparison with class averages."""
    contrast = polar_contrast(prepared.table, grid=setting.grid, box_ang=box_ang)
    images = prepared.images.astype(np.float32)
    return prepare_particles_2d(images, contrast, setting=setting, half_set=prepared.table["half"].astype(np.int8))


def note_assignment(table: NDArray[np.void], found: Assignment, *, scale: float, version: int) -> None:
    """Write assignments, whose shifts are in working pixels of ``scale`` stack pixels, into the rows of a table."""
    table["class_id"], table["psi_deg"] = found.class_id, found.psi_deg
    table["shift_y_px"], table["shift_x_px"] = (found.shift_yx_px * scale).T
    table["score"], table["probability"], table["version"] = found.score, found.probability, version


def polar_contrast(table: NDArray[np.void], *, grid: PolarGrid, box_ang: float) -> NDArray[np.float32]:
    """Return the contrast transfer with bright protein positive: ``(n, n_rings, half)``; 1 where the CTF is not known."""
    unknown = np.ones((grid.n_rings, grid.half), dtype=np.float32)
    return _contrast(table, unknown, lambda optics: -ctf_polar_2d(grid, box_ang=box_ang, **optics))


def pixel_contrast(table: NDArray[np.void], *, size: int, box_ang: float) -> NDArray[np.float32]:
    """Return the same on half spectra of images of ``size``: ``(n, size, size // 2 + 1)``."""
    unknown = np.ones((size, size // 2 + 1), dtype=np.float32)
    return _contrast(table, unknown, lambda optics: -ctf_2d(size, size, pixel_size_ang=box_ang / size, **optics))


def _contrast(
    table: NDArray[np.void], unknown: NDArray[np.float32], transfer: Callable[[dict[str, float]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return ``transfer`` of the optics of each particle, or ``unknown``, as its image shows it."""
    contrast = np.empty((len(table), *unknown.shape), dtype=np.float32)
    optics = np.ascontiguousarray(np.stack([table[name] for name in (*OPTICS, *_SCOPE)], axis=1))  # (n, 7)
    same = optics.view(f"V{optics.dtype.itemsize * optics.shape[1]}").ravel()  # as bytes, so that NaN equals NaN
    _, first, which = np.unique(same, return_index=True, return_inverse=True)
    for i, row in enumerate(optics[first]):
        values = dict(zip((*OPTICS, *_SCOPE), row.tolist(), strict=True))
        contrast[which == i] = transfer(values) if np.isfinite(row).all() else unknown
    sign = table["sign"].astype(np.float32)[:, None, None]
    flipped, multiplied = (table[name][:, None, None] for name in ("flipped", "multiplied"))
    return np.where(multiplied, contrast * contrast, np.where(flipped, np.abs(contrast), contrast)) * sign
