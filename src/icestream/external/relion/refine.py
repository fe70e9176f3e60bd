"""``relion_refine``: its version, how it is run and continued, and the tables that it writes.

Scheres (2012), J. Struct. Biol. 180:519-530, describes it. Its angles are ours in 3D; in the plane ours turn the other way, and
our shifts are minus its origins, in pixels.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.external import Command, run_program
from icestream.external.particles import PARTICLES, StagedParticles
from icestream.flow import Context, FileFormatError, Program
from icestream.io.star import Table, read_star

REFINE = Program("relion_refine", ("--version",), r"RELION version:\s*(\S+)", oldest="3.1", below="4")
REFINE_MPI = Program("relion_refine_mpi", ("--version",), r"RELION version:\s*(\S+)", oldest="3.1", below="4")
MPIRUN = Program("mpirun", ("--version",), r"\(Open MPI\)\s*(\S+)", oldest="4")

ROOT = "run"
_LARGEST_SEED = (1 << 31) - 1
_ITERATION = re.compile(r"iteration (\d+)")
_PARTS = ("optimiser", "model", "data", "sampling")


def begin_folder(ctx: Context, name: str) -> Path:
    """Return the folder in which a long job works: what an earlier attempt found is there, what it was given is removed."""
    folder = ctx.checkpoint_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if not path.name.startswith(f"{ROOT}_"):
            path.unlink()
    return folder


def particle_options(staged: StagedParticles, *, diameter_ang: float | None, ctx: Context) -> Command:
    """Return the arguments of every job on particles; a diameter that nobody knows is 0.9 of the box."""
    diameter = diameter_ang or staged.diameter_ang or 0.9 * staged.box_ang
    return (
        Command()
        .option("--i", PARTICLES)
        .option("--particle_diameter", min(diameter, 0.98 * staged.box_ang))
        .flag("--ctf", on=staged.has_ctf)
        .flag("--ctf_phase_flipped", on=staged.phase_flipped)
        .flag("--zero_mask")
        .flag("--flatten_solvent")
        .flag("--norm")
        .flag("--scale")
        .flag("--dont_check_norm")
        .option("--oversampling", 1)
        .option("--random_seed", ctx.seed % _LARGEST_SEED + 1)
    )


def computing_options(ctx: Context) -> Command:
    """Return the arguments that say how it computes, which do not count."""
    return (
        Command()
        .option("--o", f"./{ROOT}")
        .option("--j", ctx.cores)
        .option("--pool", 3)
        .flag("--dont_combine_weights_via_disc")
        .flag("--preread_images")
    )


def run_refine(command: Command, folder: Path, ctx: Context, *, n_particles: int, iterations: int) -> int:
    """Run it to its last iteration, from the newest one that an earlier attempt has finished; return the number of the last."""
    done = newest_iteration(folder, n_particles=n_particles)
    if done is None or done < iterations:
        begin = command
        if done is not None:
            begin = Command().option("--continue", f"{ROOT}_it{done:03d}_optimiser.star").option("--iter", iterations)
        words = Command((*begin.arguments, *computing_options(ctx).arguments))

        def read_progress(line: str) -> float | None:
            found = _ITERATION.search(line)
            return None if found is None else (int(found.group(1)) - 1) / iterations

        run_program(REFINE, words, ctx, folder=folder, read_progress=read_progress)
    last = newest_iteration(folder, n_particles=n_particles)
    if last is None:
        raise FileFormatError(folder / f"{ROOT}_it{iterations:03d}_data.star", "relion_refine ended without this file")
    return last


def newest_iteration(folder: Path, *, n_particles: int) -> int | None:
    """Return the newest iteration of which all files are whole; None if there is none."""
    numbers = sorted((int(path.name[len(ROOT) + 3 :][:3]) for path in folder.glob(f"{ROOT}_it*_optimiser.star")), reverse=True)
    return next((number for number in numbers if number and _is_whole(folder, number, n_particles)), None)


def _is_whole(folder: Path, number: int, n_particles: int) -> bool:
    try:
        tables = {part: read_star(folder / f"{ROOT}_it{number:03d}_{part}.star") for part in _PARTS}
    except (FileFormatError, OSError):
        return False
    return len(tables["data"].get("particles", Table({}))) == n_particles


@dataclass(frozen=True)
class FoundParticles:
    """What it says of particles, in the order of those that were given: ``(n,)`` each, shifts in pixels of the images."""

    class_number: NDArray[np.int64]
    rot_deg: NDArray[np.float64]
    tilt_deg: NDArray[np.float64]
    psi_deg: NDArray[np.float64]
    shift_yx_px: NDArray[np.float64]
    log_likelihood: NDArray[np.float64]
    probability: NDArray[np.float64]


def read_particles_found(path: Path, staged: StagedParticles, *, in_3d: bool) -> FoundParticles:
    """Return what a ``_data.star`` says, in the order of the particles that were staged.

    Raises
    ------
    FileFormatError
        It is no such file, lacks a column, or is of other particles.
    """
    table = _table(read_star(path), "particles", path)
    try:
        order = np.argsort(staged.rows_of(table.texts("rlnImageName"), path))
        angle = {name: table.floats(f"rlnAngle{name}")[order] for name in (("Rot", "Tilt", "Psi") if in_3d else ("Psi",))}
        origin = np.stack([table.floats(f"rlnOrigin{axis}Angst") for axis in "YX"], axis=1)[order]
        none = np.zeros(len(order))
        return FoundParticles(
            class_number=table.ints("rlnClassNumber")[order],
            rot_deg=angle.get("Rot", none),
            tilt_deg=angle.get("Tilt", none),
            psi_deg=angle["Psi"] if in_3d else -angle["Psi"],
            shift_yx_px=-origin / staged.pixel_size_ang,
            log_likelihood=table.floats("rlnLogLikeliContribution")[order],
            probability=table.floats("rlnMaxValueProbDistribution")[order],
        )
    except (KeyError, ValueError) as error:
        raise FileFormatError(path, f"not the particles of relion_refine: {error}") from error


@dataclass(frozen=True)
class FoundModel:
    """What it says of its references: ``(k,)`` each, and of the shells of the first one ``(n,)``; not a number: not known."""

    share: NDArray[np.float64]
    resolution_ang: NDArray[np.float64]
    frequency_per_ang: NDArray[np.float64]
    gold_standard_fsc: NDArray[np.float64]
    current_resolution_ang: float


def read_model(path: Path) -> FoundModel:
    """Return what a ``_model.star`` says of its references.

    Raises
    ------
    FileFormatError
        It is no such file, or lacks a column.
    """
    tables = read_star(path)
    classes = _table(tables, "model_classes", path)
    shells = _table(tables, "model_class_1", path)
    general = _table(tables, "model_general", path)
    try:
        return FoundModel(
            share=classes.floats("rlnClassDistribution"),
            resolution_ang=_finite(classes.floats("rlnEstimatedResolution")),
            frequency_per_ang=shells.floats("rlnResolution"),
            gold_standard_fsc=shells.floats("rlnGoldStandardFsc"),
            current_resolution_ang=float(general.floats("rlnCurrentResolution")[0]),
        )
    except (KeyError, ValueError) as error:
        raise FileFormatError(path, f"not the model of relion_refine: {error}") from error


def _finite(resolution_ang: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return resolutions without those of no class, which are written as infinite or 999."""
    known = np.isfinite(resolution_ang) & (resolution_ang > 0) & (resolution_ang < 999)
    return np.where(known, resolution_ang, np.nan)


def _table(tables: dict[str, Table], name: str, path: Path) -> Table:
    if name not in tables:
        raise FileFormatError(path, f"has no table {name!r}; there are {', '.join(tables)}")
    return tables[name]
