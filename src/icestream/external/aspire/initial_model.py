"""Initial volumes by ASPIRE: class averages that are oriented by their common lines."""

import re
from pathlib import Path

from icestream.external import Command, run_program
from icestream.external.particles import PARTICLES, READS, stage_particles
from icestream.external.published import draw_maps, make_bright, publish_map, read_cube
from icestream.flow import Angstrom, Context, Field, ItemError, Params, Program, WholePixels, step
from icestream.records import WRIGHT_2024, Acquisition, Method, Particles, Text, Volume

ASPIRE = Program(
    "aspire_python",
    ("-c", "import aspire; print('aspire', aspire.__version__)"),
    r"aspire (\d+\.\d+\S*)",
    oldest="0.13",
    below="0.16",
    never_run=True,
)
_SCRIPT = Path(__file__).with_name("find_volume.py")
_OUT = "found.mrc"
_PROGRESS = re.compile(r"progress (0\.\d+|1)\Z")


class AspireInitialModelParams(Params):
    """What ASPIRE averages and orients."""

    size_px: WholePixels = Field(
        64, ge=16, le=128, description="Side of the images that it works with; never larger than the box"
    )
    neighbours: int = Field(50, ge=2, le=500, description="Particles of a class average")
    averages: int = Field(100, ge=10, le=1000, description="Class averages that are oriented")
    diameter_ang: Angstrom | None = Field(
        None, gt=0, description="Diameter of the particle; unset: that of the picks, or 0.8 of the box"
    )


@step.map(
    "aspire_initial_model",
    version=1,
    reads=READS,
    memory_gb=6,
    programs=(ASPIRE,),
    method=Method((Text("An initial volume was found by ASPIRE from common lines of class averages."),), (WRIGHT_2024,)),
)
def find_with_aspire(
    particles: list[Particles], params: AspireInitialModelParams, acquisition: Acquisition, ctx: Context
) -> Volume:
    """Find an initial volume of a closed set of particles with ASPIRE, run by the Python of its own environment.

    It has no symmetry, and its hand is not known. ASPIRE does not judge it; `consensus_volumes` does.

    Raises
    ------
    ItemError
        As of `stage_particles`, there are fewer particles than a class average has, or ASPIRE fails.
    """
    staged = stage_particles(particles, acquisition, ctx.work_folder, ctx)
    if len(staged) <= params.neighbours:
        raise ItemError(f"{ctx.exposure.name}: {len(staged)} particles do not make class averages of {params.neighbours}")
    if not staged.has_ctf or staged.phase_flipped:
        raise ItemError(f"{ctx.exposure.name}: ASPIRE needs particles with a CTF whose phases were not flipped yet")
    size = min(params.size_px, staged.box_px)
    command = Command(("-I", str(_SCRIPT), PARTICLES, f"{staged.pixel_size_ang:.6f}", str(size)))
    command = command.word(params.neighbours).word(min(params.averages, len(staged))).word(ctx.seed % (1 << 31)).word(_OUT)
    run_program(ASPIRE, command, ctx, read_progress=read_progress)
    pixel_ang = staged.box_ang / size
    diameter_ang = params.diameter_ang or staged.diameter_ang or 0.8 * staged.box_ang
    found = make_bright(read_cube(ctx.work_folder / _OUT, box_px=size), radius_px=diameter_ang / 2 / pixel_ang)
    return Volume(
        map=publish_map(found, "_map.mrc", pixel_size_ang=pixel_ang, ctx=ctx),
        picture=draw_maps(found[None], "_volume.png", ctx),
        count=len(staged),
        box_px=size,
        bin=staged.bin * staged.box_px / size,
        diameter_ang=diameter_ang,
        version=1,
    )


def read_progress(line: str) -> float | None:
    """Return how far the script says it has come."""
    found = _PROGRESS.match(line.strip())
    return None if found is None else float(found.group(1))
