"""What a micrograph's spectrum says beyond one defocus: a surface of defocus, tilt, thickness, rings of ice."""

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from icestream.algorithms.ctf.ice_ring import ICE_RINGS_ANG
from icestream.algorithms.ctf.local_picture import draw_local_defocus
from icestream.algorithms.ctf.local_properties import CtfBeyond, examine_ctf
from icestream.algorithms.ctf.surface import MODEL_NAMES, DefocusSurface, field_points
from icestream.flow import Angstrom, Context, Degree, Field, ItemError, Params, step
from icestream.io.image import read_image
from icestream.io.preview import write_rgb
from icestream.records import CTF_COLUMNS, ELFERICH_2024, Acquisition, CtfFit, CtfLocal, FileRef, Method, Micrograph, Text

_CTF_NAMES = tuple(column.name for column in CTF_COLUMNS)
_MAX_CURVE_POINTS = 200
_PICTURE_PX = 240


class CtfLocalParams(Params):
    """How the micrograph is cut up, and what is searched."""

    tile_ang: Angstrom = Field(
        800.0, ge=200, le=4000, description="Side of the windows, overlapping by half; at most 1/2.5 of the micrograph is used"
    )
    resolution_ang: tuple[Angstrom, Angstrom] = Field(
        (30.0, 2.5), description="Low and high end of the frequencies", json_schema_extra={"unit": "Å"}
    )
    max_tilt_deg: Degree = Field(60.0, gt=0, le=80, description="Steepest slope that is searched")

    @model_validator(mode="after")
    def _check(self) -> "CtfLocalParams":
        if not self.resolution_ang[0] > self.resolution_ang[1] > 0:
            raise ValueError(f"resolution_ang is {self.resolution_ang}; give the low resolution (the larger number) first")
        return self


@step.map(
    "ctf_local",
    version=1,
    reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"),
    method=Method((Text("Local defocus, tilt and thickness were measured in tiles of {tile_ang} Å."),), (ELFERICH_2024,)),
)
def examine_local_ctf(
    micrograph: Micrograph, ctf: CtfFit, params: CtfLocalParams, acquisition: Acquisition, ctx: Context
) -> CtfLocal:
    """Measure local defocus, tilt, thickness and rings of ice of a micrograph whose CTF is known.

    The surface of defocus is no richer than the data support: a plane or a constant where they do not tell more. Connect it to
    `extract` as `local`, and every particle gets the defocus of its place. The sum without dose weighting is used where there is
    one, for its stronger rings at high frequency.

    Raises
    ------
    ItemError
        If an acquisition value is unset, or the image is too small or shows nothing.
    """
    microscope = {name: acquisition.need(name) for name in ("voltage_kv", "cs_mm", "amplitude_contrast")}
    pixel_size_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    ref = micrograph.unweighted or micrograph.image
    image = read_image(ctx.path(ref))  # (h, w)
    try:
        found = examine_ctf(
            image,
            pixel_size_ang=pixel_size_ang,
            tile_ang=params.tile_ang,
            resolution_ang=params.resolution_ang,
            max_tilt_deg=params.max_tilt_deg,
            **microscope,
            **{name: getattr(ctf, name) for name in _CTF_NAMES},
        )
    except ValueError as error:
        raise ItemError(f"{ref}: the local CTF cannot be measured: {error}") from error
    return _record_of(found, pixel_size_ang=pixel_size_ang).model_copy(update={"picture": _publish_picture(found, ctx)})


def _publish_picture(found: CtfBeyond, ctx: Context) -> FileRef:
    picture = draw_local_defocus(
        found.local.surface,
        window_yx_px=found.window_yx_px,
        window_offset_ang=found.local.window_offset_ang,
        window_error_ang=found.local.window_error_ang,
        side_px=_PICTURE_PX,
    )
    with ctx.publish("_ctf_local.png") as out:
        write_rgb(out.path, picture)
    return out.ref


def _record_of(found: CtfBeyond, *, pixel_size_ang: float) -> CtfLocal:
    """Return the record without its picture, curves thinned to 200 points."""
    local, tilt, thickness, amplitudes = found.local, found.tilt, found.thickness, found.amplitudes
    points = field_points(local.surface.shape)
    plane_gain = local.gain.get("plane")
    record = CtfLocal(
        model=MODEL_NAMES[local.surface.degree],
        coefficients_ang=[round(value, 3) for value in local.surface.coefficients.tolist()],
        height_px=local.surface.shape[0],
        width_px=local.surface.shape[1],
        range_ang=round(float(np.ptp(local.surface.offset_ang(points))), 1),
        error_ang=round(float(np.mean(local.surface.error_ang(points))), 1),
        model_note=local.note,
        plane_gain=None if plane_gain is None else round(plane_gain, 1),
        shift_ang=round(local.shift_ang, 1),
        shift_error_ang=round(local.shift_error_ang, 1),
        reversal=round(thickness.reversal, 2),
        thickness_note=thickness.note,
        n_windows=len(found.window_yx_px),
        **_curves(amplitudes.frequency_per_ang, amplitudes.smooth, thickness.fitted),
    )
    known: dict[str, object] = _ice(found, pixel_size_ang)
    if tilt is not None:
        known |= {"tilt_deg": round(tilt.angle_deg, 2), "tilt_error_deg": round(tilt.angle_error_deg, 2)}
        known |= {"tilt_axis_deg": round(tilt.axis_deg, 1), "tilt_axis_error_deg": round(tilt.axis_error_deg, 1)}
    if thickness.thickness_ang is not None and thickness.error_ang is not None and thickness.node_ang is not None:
        known |= {"thickness_ang": round(thickness.thickness_ang, 1), "thickness_error_ang": round(thickness.error_ang, 1)}
        known["node_ang"] = round(thickness.node_ang, 3)
    return record.model_copy(update=known)


def _ice(found: CtfBeyond, pixel_size_ang: float) -> dict[str, object]:
    if not found.ice_rings:
        reach = f"pixels of {pixel_size_ang:.3g} Å do not reach the ring of ice at {ICE_RINGS_ANG[0]:g} Å with its surroundings"
        return {"ice_note": reach}
    ring = max(found.ice_rings, key=lambda each: each.significance)
    return {
        "ice_ring_ang": round(ring.resolution_ang, 2),
        "ice_ring_excess": round(ring.excess, 4),
        "ice_ring_significance": round(ring.significance, 2),
    }


def _curves(*measured: NDArray[np.float64]) -> dict[str, list[float]]:
    curves = np.stack(measured)  # (3, n_rings)
    kept = np.unique(np.linspace(0, curves.shape[1] - 1, min(curves.shape[1], _MAX_CURVE_POINTS)).round().astype(int))
    names = ("frequency_per_ang", "amplitude", "amplitude_fit")
    return {name: [round(value, 5) for value in curve.tolist()] for name, curve in zip(names, curves[:, kept], strict=True)}


def defocus_offset_ang(local: CtfLocal, yx_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what is added to both defocus values of the CTF at points ``(n, 2)`` of the micrograph: ``(n,)``."""
    coefficients = np.array(local.coefficients_ang)
    shape = (local.height_px, local.width_px)
    return DefocusSurface(coefficients, np.zeros((coefficients.size,) * 2), shape).offset_ang(yx_px)
