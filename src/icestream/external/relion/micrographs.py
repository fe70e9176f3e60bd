"""One micrograph of ours for RELION's programs: the image, and a STAR file with its optics and CTF."""

from icestream.external import stage_image
from icestream.flow import Context
from icestream.io.star import Table, write_star
from icestream.records import Acquisition, CtfFit, Micrograph

IMAGE, LIST = "micrograph.mrc", "micrographs.star"
READS = ("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast")


def stage_micrograph(micrograph: Micrograph, ctf: CtfFit | None, acquisition: Acquisition, ctx: Context) -> float:
    """Put a micrograph into the working folder as `IMAGE`, described by `LIST`; return its pixel size in Å.

    Raises
    ------
    ItemError
        An acquisition value is unset.
    """
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    stage_image(ctx.path(micrograph.image), ctx.work_folder, IMAGE, pixel_size_ang=pixel_ang)
    optics = {
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnOpticsGroup": "1",
        "rlnMicrographPixelSize": f"{pixel_ang:.6f}",
        "rlnMicrographOriginalPixelSize": f"{acquisition.need('pixel_size_ang'):.6f}",
        "rlnVoltage": f"{acquisition.need('voltage_kv'):g}",
        "rlnSphericalAberration": f"{acquisition.need('cs_mm'):g}",
        "rlnAmplitudeContrast": f"{acquisition.need('amplitude_contrast'):g}",
    }
    row = {"rlnMicrographName": IMAGE, "rlnOpticsGroup": "1"}
    if ctf is not None:
        values = (ctf.defocus_u_ang, ctf.defocus_v_ang, ctf.astigmatism_angle_deg, ctf.phase_shift_deg)
        labels = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift")
        row |= {label: f"{value:.5f}" for label, value in zip(labels, values, strict=True)}
    tables = {"optics": optics, "micrographs": row}
    write_star(ctx.work_folder / LIST, {name: Table({k: [v] for k, v in one.items()}) for name, one in tables.items()})
    return pixel_ang
