"""Picking with references by RELION."""

from icestream.external import Command, run_program, stage_file
from icestream.external.relion.autopick import (
    AUTOPICK,
    OUTPUT_FOLDER,
    FoundPicks,
    ended_well,
    found_nothing,
    picks_path,
    read_picks,
    record_picks,
)
from icestream.external.relion.micrographs import IMAGE, LIST, READS, stage_micrograph
from icestream.flow import Angstrom, Context, Degree, Field, Params, step
from icestream.records import (
    ROSEMAN_2003,
    ZIVANOV_2018,
    Acquisition,
    CtfFit,
    Method,
    Micrograph,
    Picks,
    PickTemplates,
    Text,
)

_REFERENCES = "references.mrcs"


class RelionReferencePickerParams(Params):
    """How micrographs are compared with references; names in brackets are RELION's."""

    threshold: float = Field(0.05, ge=0, le=10, description="Least share of the expected probability ratio (--threshold)")
    min_distance_ang: Angstrom | None = Field(
        None, gt=0, description="Least distance of two picks (--min_distance); unset: half the diameter"
    )
    max_noise_spread: float | None = Field(
        None, gt=0, description="Picks with a larger spread of the background are left out (--max_stddev_noise); unset: none"
    )
    angle_deg: Degree = Field(5.0, gt=0, le=360, description="In-plane sampling (--ang)")
    lowpass_ang: Angstrom = Field(20.0, gt=0, description="Resolution to which references are filtered (--lowpass)")
    dark: bool = Field(True, description="Particles are darker than the ice; references are bright (--invert)")
    shrink: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Size to which the micrograph is shrunk, as a fraction (--shrink); 0: as far as lowpass_ang allows",
    )
    max_picks: int | None = Field(None, ge=1, description="Keep at most this many, the best; unset: all")


@step.map(
    "relion_reference_picker",
    version=1,
    reads=READS,
    memory_gb=4.0,
    programs=(AUTOPICK,),
    method=Method((Text("Particles were picked with references by RELION."),), (ZIVANOV_2018, ROSEMAN_2003)),
)
def pick_with_relion_references(
    micrograph: Micrograph,
    templates: PickTemplates,
    ctf: CtfFit | None,
    params: RelionReferencePickerParams,
    acquisition: Acquisition,
    ctx: Context,
) -> Picks:
    """Find particles that look like templates with RELION, which is run as it is installed.

    With a CTF, references are given that of the micrograph. Picks are numbered from the best figure of merit down, which is their
    score.

    Raises
    ------
    ItemError
        An acquisition value is unset, or RELION fails.
    """
    stage_micrograph(micrograph, ctf, acquisition, ctx)
    stage_file(ctx.path(templates.stack), ctx.work_folder, _REFERENCES)
    command = (
        Command()
        .option("--i", LIST)
        .option("--odir", OUTPUT_FOLDER)
        .option("--pickname", "picks")
        .option("--ref", _REFERENCES)
        .option("--angpix_ref", templates.pixel_size_ang)
        .option("--particle_diameter", templates.diameter_ang)
        .option("--threshold", params.threshold)
        .option("--min_distance", params.min_distance_ang or 0.5 * templates.diameter_ang)
        .option("--max_stddev_noise", params.max_noise_spread)
        .option("--ang", params.angle_deg)
        .option("--lowpass", params.lowpass_ang)
        .option("--shrink", params.shrink)
        .flag("--invert", on=params.dark)
        .flag("--ctf", on=ctf is not None)
    )
    done = run_program(AUTOPICK, command, ctx, ended_well=ended_well)
    found = FoundPicks.none() if found_nothing(done.tail) else read_picks(picks_path(done.folder, IMAGE))
    picks = record_picks(found, micrograph, diameter_ang=templates.diameter_ang, max_picks=params.max_picks)
    return picks.model_copy(update={"reference": templates.stack})
