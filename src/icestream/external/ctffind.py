"""CTFFIND 4.1 (Rohou & Grigorieff 2015, J. Struct. Biol. 192:216-221), which asks for its parameters one by one."""

import math
from pathlib import Path

from icestream.external import Command
from icestream.external.ctf_form import IMAGE, READS, CtfForm, CtfScope, FoundCtf, fit_with_program, read_numbers
from icestream.flow import Angstrom, Context, Degree, Field, Micrometer, Params, Program, WholePixels, step
from icestream.records import ROHOU_2015, Acquisition, CtfFit, Method, Micrograph, Text

CTFFIND = Program("ctffind", ("--version",), r"(4\.1\.\d+)", oldest="4.1.9", below="4.2", never_run=True)
_PICTURE, _ANSWER = "spectrum.mrc", "spectrum.txt"
_NO, _YES = "no", "yes"


class CtffindParams(Params):
    """What CTFFIND searches, in the order of its questions."""

    tile_px: WholePixels = Field(512, ge=128, le=4096, description="Size of the amplitude spectrum")
    resolution_ang: tuple[Angstrom, Angstrom] = Field((30.0, 5.0), description="Coarsest and finest resolution of the fit")
    defocus_um: tuple[Micrometer, Micrometer] = Field((0.3, 5.0), description="Smallest and largest defocus")
    defocus_step_ang: Angstrom = Field(100.0, gt=0, description="Step of the search")
    astigmatism_ang: Angstrom | None = Field(None, gt=0, description="Astigmatism that is tolerated; unset: not restrained")
    exhaustive: bool = Field(False, description="Slower, more exhaustive search")
    phase_shift_deg: tuple[Degree, Degree] | None = Field(
        None, description="Smallest and largest phase shift of a phase plate; unset: not searched for"
    )


@step.map(
    "ctffind",
    version=1,
    reads=READS,
    memory_gb=2,
    programs=(CTFFIND,),
    method=Method((Text("The CTF was estimated with CTFFIND."),), (ROHOU_2015,)),
)
def fit_with_ctffind(micrograph: Micrograph, params: CtffindParams, acquisition: Acquisition, ctx: Context) -> CtfFit:
    """Fit the CTF of one micrograph with CTFFIND, which is run as it is installed.

    Its score is CTFFIND's cross-correlation, its resolution that up to which Thon rings were fitted.

    Raises
    ------
    ItemError
        An acquisition value is unset, or CTFFIND fails.
    """

    def make(scope: CtfScope) -> CtfForm:
        return CtfForm(CTFFIND, Command(), _ANSWER, read_ctffind, answer_questions(params, scope), _PICTURE)

    return fit_with_program(micrograph, acquisition, ctx, make)


def answer_questions(params: CtffindParams, scope: CtfScope) -> tuple[str, ...]:
    """Return what CTFFIND 4.1 is told, an answer for each of its questions about an image that is no movie."""
    numbers = (
        scope.pixel_size_ang,
        scope.voltage_kv,
        scope.cs_mm,
        scope.amplitude_contrast,
        params.tile_px,
        *params.resolution_ang,
        *(1e4 * um for um in params.defocus_um),
        params.defocus_step_ang,
    )
    restraint = (_NO,) if params.astigmatism_ang is None else (_YES, f"{params.astigmatism_ang:g}")
    phase: tuple[str, ...] = (_NO,)
    if params.phase_shift_deg is not None:
        phase = (_YES, *(f"{math.radians(deg):.6f}" for deg in (*params.phase_shift_deg, 10.0)))
    known_astigmatism, exhaustive, expert = _NO, _YES if params.exhaustive else _NO, _NO
    return (IMAGE, _PICTURE, *(f"{one:.10g}" for one in numbers), known_astigmatism, exhaustive, *restraint, *phase, expert)


def read_ctffind(path: Path) -> FoundCtf:
    """Return the CTF in the text file of CTFFIND 4.1: comments, and a line for the one micrograph.

    Raises
    ------
    FileFormatError
        It is no such file, or lacks a value.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    _, u, v, angle, phase_rad, score, resolution = read_numbers(path, lines, least=7, what="a CTF of CTFFIND")[:7]
    return FoundCtf(u, v, angle, math.degrees(phase_rad), score, resolution)
