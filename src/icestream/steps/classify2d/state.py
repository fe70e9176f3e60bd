"""What streaming 2D classification remembers between calls, and how it is stored."""

import hashlib

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from icestream.algorithms.classify2d.ctf import ctf_polar_2d
from icestream.algorithms.classify2d.em import Model, Setting, prepare_particles_2d
from icestream.algorithms.classify2d.model import Averages, Sums
from icestream.algorithms.classify2d.polar import Real
from icestream.algorithms.classify2d.search import PolarParticles
from icestream.errors import ItemError
from icestream.flow import Context, Exposure
from icestream.io.particles import particles_table, with_slices
from icestream.records import CTF_COLUMNS, Acquisition, Cutting, FileRef, Particles, Record
from icestream.steps.particles.reading import read_images
from icestream.units import Angstrom

OPTICS = tuple(column.name for column in CTF_COLUMNS)
_HELD_COLUMNS = np.dtype(
    [("pid", "<i4"), ("slice", "<i4"), ("y_px", "<f4"), ("x_px", "<f4"), *((name, "<f8") for name in OPTICS)]
)


class HeldExposure(Record):
    """An exposure whose particles can be looked at again; ``counts`` are its particles per class."""

    id: str
    name: str
    stack: FileRef | None = Field(description="Unset: the images are cut from the micrograph when they are read")
    cutting: Cutting | None = None
    micrograph: FileRef | None = None
    table: FileRef = Field(description="pid, place, slice and optics per particle, ``.npy``")
    count: int = Field(ge=1)
    ordinal: int = Field(ge=0, description="Position in the stream")
    inverted: bool
    phase_flipped: bool
    voltage_kv: float
    cs_mm: float
    amplitude_contrast: float
    counts: list[int] = Field(default_factory=list)


class Classify2DState(Record):
    """The classification so far; arrays are in ``model``, ``.npz`` without pickles."""

    seed: int
    model: FileRef | None = None
    n_particles: int = 0
    n_exposures: int = 0
    next_anneal: int = 0
    box_px: int | None = None
    bin: float | None = None
    pixel_size_ang: Angstrom | None = Field(None, description="Of the particle stacks")
    held: list[HeldExposure] = Field(default_factory=list)
    settled: list[int] = Field(default_factory=list, description="Particles per class of the exposures no longer held")


def hold_exposure(exposure: Exposure, particles: Particles, acquisition: Acquisition, ordinal: int, ctx: Context) -> HeldExposure:
    """Write down all that is needed to look at the particles of one exposure again.

    Raises
    ------
    ItemError
        If an acquisition value is unset.
    """
    rows = particles_table(particles)
    table = np.zeros(len(rows), dtype=_HELD_COLUMNS)
    for name in set(_HELD_COLUMNS.names or ()) & set(rows.dtype.names or ()):
        table[name] = rows[name]
    with ctx.publish(f"_{exposure.name}_{exposure.id[:8]}_optics.npy") as out, out.path.open("wb") as handle:
        np.save(handle, table, allow_pickle=False)
    if particles.stack is None and particles.cutting is None:
        raise ItemError(f"{exposure.name}: has {particles.count} particles but no images")
    return HeldExposure(
        id=exposure.id,
        name=exposure.name,
        stack=particles.stack,
        cutting=particles.cutting,
        micrograph=particles.micrograph,
        table=out.ref,
        count=particles.count,
        ordinal=ordinal,
        inverted=particles.inverted,
        phase_flipped=particles.phase_flipped,
        voltage_kv=acquisition.need("voltage_kv"),
        cs_mm=acquisition.need("cs_mm"),
        amplitude_contrast=acquisition.need("amplitude_contrast"),
    )


def choose_held(candidates: list[HeldExposure], *, seed: int, most: int) -> tuple[list[HeldExposure], list[HeldExposure]]:
    """Split into the exposures kept for later passes, a random subset of at most ``most`` particles, and the others.

    The subset of a longer stream is drawn as if from all of it: an exposure's rank depends on nothing but its id and the seed.
    """

    def rank(exposure: HeldExposure) -> bytes:
        return hashlib.blake2b(f"{seed}:{exposure.id}".encode(), digest_size=8).digest()

    total = 0
    kept: set[str] = set()
    for exposure in sorted(candidates, key=rank):
        total += exposure.count
        if total > most and kept:
            break
        kept.add(exposure.id)
    return [e for e in candidates if e.id in kept], [e for e in candidates if e.id not in kept]


def load_table(exposure: HeldExposure, ctx: Context) -> NDArray[np.void]:
    """Return pid, place, slice and optics of the particles of one exposure."""
    return with_slices(np.load(ctx.path(exposure.table), allow_pickle=False))


def load_particles(exposures: list[HeldExposure], *, setting: Setting, box_ang: float, ctx: Context) -> PolarParticles:
    """Read and prepare the particles of exposures, in their order."""
    parts = []
    for exposure in exposures:
        table = load_table(exposure, ctx)
        images = read_images(exposure, table, ctx)  # (n, box, box)
        ctf = _contrast(exposure, table, setting, box_ang)
        half_set = ((np.arange(exposure.count) + exposure.ordinal) % 2).astype(np.int8)
        parts.append(prepare_particles_2d(images, ctf, setting=setting, half_set=half_set))
    return PolarParticles(
        np.concatenate([part.signal for part in parts]),
        np.concatenate([part.ctf_squared for part in parts]),
        np.concatenate([part.power for part in parts]),
        np.concatenate([part.half_set for part in parts]),
    )


def _contrast(exposure: HeldExposure, table: NDArray[np.void], setting: Setting, box_ang: float) -> Real:
    """Return the contrast transfer with bright protein positive: ``(n, n_rings, half)``; 1 where the CTF is not known."""
    grid = setting.grid
    sign = 1.0 if exposure.inverted else -1.0
    contrast = np.full((len(table), grid.n_rings, grid.half), sign, dtype=np.float32)
    for i, row in enumerate(table):
        optics = {name: float(row[name]) for name in OPTICS}
        if not all(np.isfinite(value) for value in optics.values()):
            continue
        ctf = ctf_polar_2d(
            grid,
            box_ang=box_ang,
            voltage_kv=exposure.voltage_kv,
            cs_mm=exposure.cs_mm,
            amplitude_contrast=exposure.amplitude_contrast,
            **optics,
        )
        contrast[i] = sign * np.abs(ctf) if exposure.phase_flipped else -sign * ctf
    return contrast


def save_model(model: Model, ctx: Context) -> FileRef:
    """Publish the arrays of a model."""
    averages, sums = model.averages, model.sums
    with ctx.publish("_state.npz") as out, out.path.open("wb") as handle:
        np.savez(
            handle,
            images=averages.images,
            halves=averages.halves,
            correlation=averages.correlation,
            noise_power=averages.noise_power,
            signal=sums.signal,
            ctf_squared=sums.ctf_squared,
            weight=sums.weight,
            power=sums.power,
            n_seen=np.int64(model.n_seen),
        )
    return out.ref


def load_model(ref: FileRef, ctx: Context) -> Model:
    """Read the arrays of a model, bit for bit as they were."""
    with np.load(ctx.path(ref), allow_pickle=False) as stored:
        averages = Averages(stored["images"], stored["halves"], stored["correlation"], stored["noise_power"])
        sums = Sums(stored["signal"], stored["ctf_squared"], stored["weight"], stored["power"])
        return Model(averages, sums, int(stored["n_seen"]))
