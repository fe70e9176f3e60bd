"""Gctf (Zhang 2016, J. Struct. Biol. 193:1-12), which needs a GPU."""

import re
from pathlib import Path

from icestream.external import Command
from icestream.external.ctf_form import IMAGE, READS, CtfForm, CtfScope, FoundCtf, fit_with_program, read_numbers
from icestream.flow import Angstrom, Context, Field, FileFormatError, Micrometer, Params, Program, WholePixels, step
from icestream.records import ZHANG_2016, Acquisition, CtfFit, Method, Micrograph, Text

GCTF = Program("Gctf", (), r"Gctf[_ ]?v?(\d+\.\d+)", oldest="1.06", never_run=True)
_LOG, _PICTURE = "micrograph_gctf.log", "micrograph.ctf"
_LIMIT = re.compile(r"RES_LIMIT\s+(\S+)")


class GctfParams(Params):
    """What Gctf searches; names in brackets are its own."""

    tile_px: WholePixels = Field(1024, ge=128, le=4096, description="Size of the spectrum (--boxsize)")
    resolution_ang: tuple[Angstrom, Angstrom] = Field((50.0, 4.0), description="Coarsest and finest resolution (--resL, --resH)")
    defocus_um: tuple[Micrometer, Micrometer] = Field((0.5, 5.0), description="Smallest and largest defocus (--defL, --defH)")
    astigmatism_ang: Angstrom = Field(1000.0, gt=0, description="Astigmatism that is expected (--astm)")


@step.map(
    "gctf",
    version=1,
    reads=READS,
    memory_gb=2,
    gpu_gb=2,
    programs=(GCTF,),
    method=Method((Text("The CTF was estimated with Gctf."),), (ZHANG_2016,)),
)
def fit_with_gctf(micrograph: Micrograph, params: GctfParams, acquisition: Acquisition, ctx: Context) -> CtfFit:
    """Fit the CTF of one micrograph with Gctf, which is run as it is installed, on the granted GPU.

    Its score is Gctf's cross-correlation, its resolution that of equi-phase averaging.

    Raises
    ------
    ItemError
        An acquisition value is unset, or Gctf fails.
    """

    def make(scope: CtfScope) -> CtfForm:
        return CtfForm(GCTF, gctf_command(params, scope), _LOG, read_gctf)

    return fit_with_program(micrograph, acquisition, ctx, make)


def gctf_command(params: GctfParams, scope: CtfScope) -> Command:
    """Return the arguments of Gctf."""
    return (
        Command()
        .option("--apix", scope.pixel_size_ang)
        .option("--kV", scope.voltage_kv)
        .option("--Cs", scope.cs_mm)
        .option("--ac", scope.amplitude_contrast)
        .option("--boxsize", params.tile_px)
        .option("--resL", params.resolution_ang[0])
        .option("--resH", params.resolution_ang[1])
        .option("--defL", 1e4 * params.defocus_um[0])
        .option("--defH", 1e4 * params.defocus_um[1])
        .option("--astm", params.astigmatism_ang)
        .option("--do_EPA", 1)
        .option("--gid", 0)
        .word(IMAGE)
    )


def read_gctf(path: Path) -> FoundCtf:
    """Return the CTF in a log of Gctf: the line that ends in ``Final Values``, and the limit of the resolution.

    Raises
    ------
    FileFormatError
        It is no such file, or lacks a value.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = [line.partition("Final Values")[0] for line in text.splitlines() if "Final Values" in line]
    numbers = read_numbers(path, lines, least=4, what="the final values of Gctf")
    limit = _LIMIT.search(text)
    if limit is None:
        raise FileFormatError(path, "does not say RES_LIMIT, the resolution of the fit")
    try:
        resolution_ang = float(limit.group(1))
    except ValueError as error:
        raise FileFormatError(path, f"has no number after RES_LIMIT: {error}") from error
    u, v, angle, *phase, score = numbers[:5]
    return FoundCtf(u, v, angle, phase[0] if phase else 0.0, score, resolution_ang)
