"""crYOLO (Wagner et al. 2019, Commun. Biol. 2:218), a picker with a network that a facility provides."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.external import Command, stage_file
from icestream.external.picker_form import PickerForm, pick_with_program, read_columns
from icestream.flow import Angstrom, Context, Field, Params, Program, WholePixels, step
from icestream.records import WAGNER_2019, Acquisition, FileRef, Method, Micrograph, Picks, Text

CRYOLO = Program("cryolo_predict.py", ("--version",), r"(\d+\.\d+\.\d+\S*)", oldest="1.8", below="2", never_run=True)
_IMAGE, _CONFIG, _MODEL, _ANSWER = "images/micrograph.mrc", "config.json", "model.h5", "found/CBOX/micrograph.cbox"
_COLUMNS = ("CoordinateY", "CoordinateX", "Height", "Width", "Confidence")


class CryoloParams(Params):
    """Which network picks, and what counts."""

    model: FileRef = Field(description="The network, as root:path of an .h5 file; it is identified by its content")
    diameter_ang: Angstrom = Field(gt=0, description="Diameter of the particle")
    threshold: float = Field(0.3, ge=0, le=1, description="Least confidence of a pick (-t)")
    lowpass: float = Field(0.1, gt=0, le=0.5, description="Low-pass filter of the micrograph, in cycles per pixel")
    input_px: WholePixels = Field(1024, ge=256, le=4096, description="Longer side of what the network sees (input_size)")
    max_picks: int | None = Field(None, ge=1, description="Keep at most this many, the best; unset: all")


@step.map(
    "cryolo",
    version=1,
    reads=("pixel_size_ang",),
    memory_gb=6,
    programs=(CRYOLO,),
    method=Method((Text("Particles were picked with crYOLO."),), (WAGNER_2019,)),
)
def pick_with_cryolo(micrograph: Micrograph, params: CryoloParams, acquisition: Acquisition, ctx: Context) -> Picks:
    """Find particles with a network of crYOLO, which is run in the environment that it is installed in.

    Raises
    ------
    ItemError
        The pixel size is unset, or crYOLO fails.
    """
    stage_file(ctx.path(params.model), ctx.work_folder, _MODEL)

    def make(pixel_ang: float) -> PickerForm:
        text = json.dumps(cryolo_config(params, pixel_ang))
        (ctx.work_folder / _CONFIG).write_text(text, encoding="utf-8")
        return PickerForm(CRYOLO, cryolo_command(params, on_gpu=ctx.gpu is not None), _ANSWER, read_cbox)

    return pick_with_program(
        micrograph, acquisition, ctx, make, diameter_ang=params.diameter_ang, image=_IMAGE, max_picks=params.max_picks
    )


def cryolo_config(params: CryoloParams, pixel_ang: float) -> dict[str, object]:
    """Return the configuration of crYOLO; boxes are as wide as the particle."""
    box_px = max(1, round(params.diameter_ang / pixel_ang))
    model = {
        "architecture": "PhosaurusNet",
        "input_size": params.input_px,
        "anchors": [box_px, box_px],
        "max_box_per_image": 2000,
        "norm": "STANDARD",
        "filter": [params.lowpass, "filtered/"],
    }
    return {"model": model, "other": {"log_path": "logs/"}}


def cryolo_command(params: CryoloParams, *, on_gpu: bool) -> Command:
    """Return the arguments of crYOLO."""
    return (
        Command()
        .option("-c", _CONFIG)
        .option("-w", _MODEL)
        .option("-i", str(Path(_IMAGE).parent))
        .option("-o", "found")
        .option("-t", params.threshold)
        .option("-g", 0 if on_gpu else -1)
    )


def read_cbox(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the picks in a CBOX file: corners and sides of boxes, and how sure the network is of each.

    Raises
    ------
    FileFormatError
        It is no such file, or lacks a column.
    """
    y, x, height, width, confidence = read_columns(path, _COLUMNS, what="the picks of crYOLO")
    return np.stack([y + height / 2, x + width / 2], axis=1), confidence
