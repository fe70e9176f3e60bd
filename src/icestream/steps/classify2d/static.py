"""2D classification against fixed class averages: each particle is assigned once, and the averages stay as they are.

The averages are a version of a classification of ours, or are imported from a file.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.classify2d import Averages, Setting, Sums
from icestream.algorithms.scoring import PolarParticles, polar_from_orders, sample_polar_2d, soft_disc_2d
from icestream.flow import Context, Field, FileFormatError, ItemError, SourceContext, Watch, step
from icestream.io.image import image_header, read_stack
from icestream.records import Acquisition, ClassAssignments, ClassAverages, ClassInfo, ClassSelection, Particles
from icestream.steps.classify2d.averages import assignment_record
from icestream.steps.classify2d.params import SearchParams, plan_classification
from icestream.steps.classify2d.passes import Scale, look
from icestream.steps.classify2d.segments import TABLE, note_assignment, prepare, shrink_2d
from icestream.steps.classify2d.streaming import READS
from icestream.steps.movies.file_source import FileSourceParams, watch_files
from icestream.units import Angstrom

_FITS = 2
_SIGNAL_SHARE = 0.1
"""Of the power of a particle, where the search for the contrast begins."""


class StaticParams(SearchParams):
    """How particles are compared with fixed class averages."""

    only: list[int] = Field(
        default_factory=list, description="Ids of the classes that particles may be assigned to; unset: all that have particles"
    )


@step.map("classify2d_static", version=1, reads=READS, memory_gb=2)
def assign_to_classes(
    particles: Particles,
    classes: ClassAverages,
    params: StaticParams,
    acquisition: Acquisition,
    ctx: Context,
    *,
    selection: ClassSelection | None = None,
) -> ClassAssignments:
    """Assign each new particle once to fixed class averages, which stay as they are.

    The averages are the version that was the newest when the exposure came first, of `classify2d` or of `import_averages`; they
    may have another box and pixel size than the particles. Imported ones are brought to the contrast of the particles. With a
    selection, only its classes are used.

    Raises
    ------
    ItemError
        An acquisition value is unset, no class has particles, or an id is not among the averages.
    """
    version = classes.version or 0
    if not particles.count:
        return assignment_record(np.empty(0, dtype=TABLE), None, version=version)
    places = _places(classes, params, selection)
    pixel_ang = acquisition.need("pixel_size_ang")
    box_ang = particles.box_px * particles.bin * pixel_ang
    of_classes = classes.pixel_size_ang or classes.bin * pixel_ang
    limit_ang = max(params.limit_ang, 2.2 * of_classes)
    known = params.model_copy(update={"limit_ang": limit_ang, "diameter_ang": params.diameter_ang or classes.diameter_ang})
    setting = plan_classification(known, box_px=particles.box_px, pixel_size_ang=particles.bin * pixel_ang, n_classes=len(places))
    scale = Scale(setting, box_ang, particles.box_px / setting.grid.box_px)
    prepared = prepare(
        particles, acquisition, size=setting.grid.box_px, name=ctx.exposure.name, exposure_id=ctx.exposure.id, ordinal=0, ctx=ctx
    )
    polar = scale.polar(prepared)
    images = read_references(classes, places, setting=setting, zoom=of_classes / (box_ang / setting.grid.box_px), ctx=ctx)
    averages = as_averages(images, polar)
    if classes.noise is None:
        averages = _match_contrast(averages, polar, setting)
    table = prepared.table
    note_assignment(table, look(polar, averages, setting=setting)[1], scale=scale.stack_px, version=version)
    ids = [classes.classes[k].id for k in places]
    return assignment_record(table, ids, version=version, picks_key=particles.picks_key)


def _places(classes: ClassAverages, params: StaticParams, selection: ClassSelection | None) -> list[int]:
    """Return the places of the classes that may be assigned to."""
    by_id = {info.id: place for place, info in enumerate(classes.classes)}
    unknown = sorted(set(params.only) - by_id.keys())
    if unknown:
        raise ItemError(f"only: {unknown} are no classes of these averages; they have {sorted(by_id)}")
    selected = None if selection is None else {one.id for one in selection.classes if one.selected}
    filled = [info.id for info in classes.classes if info.count]
    wanted = params.only or [one for one in filled if selected is None or one in selected]
    if not wanted:
        raise ItemError("no class has particles and is selected, so none can be assigned")
    return [by_id[one] for one in wanted]


def read_references(
    classes: ClassAverages, places: list[int], *, setting: Setting, zoom: float, ctx: Context
) -> NDArray[np.float32]:
    """Read class averages in the working box of a plan, masked: ``(k, box, box)``; ``zoom`` working pixels are one of theirs."""
    stored = read_stack(ctx.path(classes.stack))[places]  # (k, b, b)
    size = setting.grid.box_px
    if stored.shape[-1] == size and abs(zoom - 1) < 1e-3:
        return stored
    if zoom < 1:  # finer than needed: smooth by Fourier cropping first
        smaller = max(4, 2 * round(stored.shape[-1] * zoom / 2))
        zoom *= stored.shape[-1] / smaller
        stored = shrink_2d(stored, size=smaller)
    box = stored.shape[-1]
    offset = box // 2 - (size // 2) / zoom
    images = np.stack(
        [
            ndimage.affine_transform(image, np.full(2, 1 / zoom), offset, output_shape=(size, size), order=3, mode="constant")
            for image in stored
        ]
    )
    mask = soft_disc_2d(size, radius_px=setting.mask_radius_px, edge_px=setting.edge_px)
    references: NDArray[np.float32] = (images * mask).astype(np.float32)
    return references


def as_averages(images: NDArray[np.float32], particles: PolarParticles) -> Averages:
    """Return fixed images as averages; the noise is the power of the particles themselves, of which little is signal."""
    noise = particles.power.mean(axis=0).astype(np.float32)
    return Averages(images, np.stack([images, images]), np.ones((len(images), len(noise))), noise)


def _match_contrast(averages: Averages, particles: PolarParticles, setting: Setting) -> Averages:
    """Bring images of unknown grey values to the contrast of the particles, by the best poses at the last contrast."""
    rms = np.sqrt((averages.images**2).mean(axis=(1, 2), keepdims=True))
    images = averages.images / np.maximum(rms, 1e-9)
    power = float((np.abs(sample_polar_2d(images, grid=setting.grid)) ** 2).mean(axis=(0, 2)).sum())
    start = np.sqrt(_SIGNAL_SHARE * float(particles.power.mean(axis=0).sum()) / max(power, 1e-9))
    current = replace(averages, images=(images * start).astype(np.float32))
    for _ in range(_FITS):
        sums, _found = look(particles, current, setting=setting)
        current = replace(current, images=(current.images * _best_contrast(current, sums, setting)).astype(np.float32))
    return current


def _best_contrast(averages: Averages, sums: Sums, setting: Setting) -> float:
    """Return the factor on all averages that explains the particles best."""
    polar = sample_polar_2d(averages.images, grid=setting.grid)  # (k, n_rings, half)
    radii = setting.grid.radii()[None, :, None] / averages.noise_power[None, :, None]
    signal = polar_from_orders(sums.signal.sum(axis=0).transpose(0, 2, 1), grid=setting.grid)  # (k, n_rings, half)
    ctf_squared = sums.ctf_squared.sum(axis=0).transpose(0, 2, 1)  # (k, n_rings, 1)
    cross = float((np.real(np.conj(polar) * signal) * radii).sum())
    own = float((np.abs(polar) ** 2 * ctf_squared * radii).sum())
    return float(np.clip(cross / max(own, 1e-12), 0.05, 20.0))


class ImportAveragesParams(FileSourceParams):
    """Which file has the class averages."""

    root: str = Field("averages", pattern=r"^[a-z][a-z0-9_]*$", description="Named folder of the session to watch")
    pattern: str = Field("*classes.mrcs", min_length=1, description="Which files: a glob relative to the root")
    pixel_size_ang: Angstrom | None = Field(None, gt=0, description="Of the averages; unset: as the file says")
    diameter_ang: Angstrom | None = Field(
        None, gt=0, description="Diameter of the round mask on the averages; unset: the whole box"
    )
    max_files: int | None = Field(
        1,
        ge=1,
        description="Stop looking after this many files; unset: take new ones throughout the session",
        json_schema_extra={"operational": True},
    )


@step.source("import_averages", version=1, output=ClassAverages)
def import_averages(params: ImportAveragesParams, ctx: SourceContext) -> Watch:
    """Take class averages from a stack of images, as fixed references; particles wait for them.

    The averages are bright on dark, as those of RELION, cryoSPARC and icestream are. Class ids count from 1, as RELION's do;
    empty images are left out.
    """

    def read(path: Path, ref: str) -> tuple[ClassAverages, Acquisition | None]:
        return read_averages(path, ref, pixel_size_ang=params.pixel_size_ang, diameter_ang=params.diameter_ang), None

    return watch_files(params, ctx, read, suffixes=frozenset({".mrcs", ".mrc", ".tif", ".tiff"}), refuse_broken=True)


def read_averages(path: Path, ref: str, *, pixel_size_ang: float | None, diameter_ang: float | None) -> ClassAverages:
    """Return the record of a stack of class averages.

    Raises
    ------
    FileFormatError
        The images are not square, all empty, or nobody says their pixel size.
    """
    header = image_header(path)
    if header.height_px != header.width_px:
        raise FileFormatError(path, f"class averages are square; these are {header.height_px} x {header.width_px} px")
    known = pixel_size_ang or header.pixel_size_ang
    if not known:
        raise FileFormatError(path, "does not say its pixel size; set pixel_size_ang")
    filled = np.ptp(read_stack(path), axis=(1, 2)) > 0  # (k,)
    if not filled.any():
        raise FileFormatError(path, f"all {header.n_images} class averages are empty")
    return ClassAverages(
        stack=ref,
        picture=None,
        count=0,
        box_px=header.width_px,
        bin=1.0,
        pixel_size_ang=known,
        diameter_ang=diameter_ang,
        classes=[ClassInfo(id=number + 1, count=int(there)) for number, there in enumerate(filled)],
    )
