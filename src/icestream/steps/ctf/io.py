"""What both CTF steps do before and after the estimate: read the image, draw the estimate, and make its record."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.fit import CtfEstimate
from icestream.algorithms.ctf.picture import draw_ctf_fit
from icestream.flow import Context
from icestream.io.image import read_image
from icestream.io.preview import write_preview
from icestream.records import Acquisition, CtfFit, FileRef, Micrograph

_MAX_CURVE_POINTS = 200


@dataclass(frozen=True)
class CtfImage:
    """An image ``(h, w)``, its name, its pixel size, and the values of the microscope that every CTF function asks for."""

    pixels: NDArray[Any]
    name: str
    pixel_size_ang: float
    microscope: dict[str, float]

    @property
    def shape(self) -> tuple[int, int]:
        """Return height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]


def read_for_ctf(micrograph: Micrograph, acquisition: Acquisition, ctx: Context) -> CtfImage:
    """Read the sum without dose weighting, where there is one: its rings are stronger at high frequency.

    Raises
    ------
    ItemError
        If an acquisition value is unset.
    """
    microscope = {name: acquisition.need(name) for name in ("voltage_kv", "cs_mm", "amplitude_contrast")}
    ref = micrograph.unweighted or micrograph.image
    return CtfImage(read_image(ctx.path(ref)), str(ref), acquisition.need("pixel_size_ang") * micrograph.bin, microscope)


def publish_picture(
    estimate: CtfEstimate,
    spectrum: NDArray[Any],
    ctx: Context,
    *,
    suffix: str,
    image: CtfImage,
    resolution_ang: float,
) -> FileRef:
    """Draw a spectrum ``(tile, tile // 2 + 1)`` beside the fitted rings and publish it; the limit is that of the picture."""
    picture = draw_ctf_fit(
        spectrum,
        pixel_size_ang=image.pixel_size_ang,
        defocus_u_ang=estimate.defocus_u_ang,
        defocus_v_ang=estimate.defocus_v_ang,
        astigmatism_angle_deg=estimate.astigmatism_angle_deg,
        phase_shift_deg=estimate.phase_shift_deg,
        resolution_ang=resolution_ang,
        **image.microscope,
    )
    with ctx.publish(suffix) as out:
        write_preview(out.path, picture, max_px=512)
    return out.ref


def record_of(estimate: CtfEstimate, *, estimator: Literal["least_squares", "equiphase"], spectrum: FileRef) -> CtfFit:
    """Return the record of an estimate, its curves thinned to 200 points."""
    n_rings = estimate.frequency_per_ang.size
    kept = np.unique(np.linspace(0, n_rings - 1, min(n_rings, _MAX_CURVE_POINTS)).round().astype(int))
    phase_error = estimate.phase_shift_error_deg
    return CtfFit(
        defocus_u_ang=round(estimate.defocus_u_ang, 2),
        defocus_v_ang=round(estimate.defocus_v_ang, 2),
        astigmatism_angle_deg=round(estimate.astigmatism_angle_deg, 2),
        phase_shift_deg=round(estimate.phase_shift_deg, 2),
        score=round(estimate.score, 4),
        resolution_ang=round(estimate.resolution_ang, 3),
        defocus_error_ang=round(estimate.defocus_error_ang, 2),
        astigmatism_error_ang=round(estimate.astigmatism_error_ang, 2),
        angle_error_deg=round(estimate.angle_error_deg, 2),
        phase_shift_error_deg=None if phase_error is None else round(phase_error, 2),
        significance=round(estimate.significance, 2),
        confidence=round(estimate.confidence, 6),
        estimator=estimator,
        spectrum=spectrum,
        frequency_per_ang=_rounded(estimate.frequency_per_ang[kept], digits=5),
        profile=_rounded(estimate.profile[kept], digits=4),
        profile_fit=_rounded(estimate.profile_fit[kept], digits=4),
        correlation=_rounded(estimate.correlation[kept], digits=3),
    )


def _rounded(curve: NDArray[np.float64], *, digits: int) -> list[float]:
    return [round(value, digits) for value in curve.tolist()]
