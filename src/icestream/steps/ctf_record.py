"""What both CTF steps do with an estimate: draw it, and make its record."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf_fit import CtfEstimate
from icestream.algorithms.ctf_picture import draw_ctf_fit
from icestream.flow import Context
from icestream.io.preview import write_preview
from icestream.records import CtfFit, FileRef

_MAX_CURVE_POINTS = 200


def publish_picture(
    estimate: CtfEstimate,
    spectrum: NDArray[Any],
    ctx: Context,
    *,
    suffix: str,
    pixel_size_ang: float,
    resolution_ang: float,
    voltage_kv: float,
    cs_mm: float,
    amplitude_contrast: float,
) -> FileRef:
    """Draw a spectrum ``(tile, tile // 2 + 1)`` beside the fitted rings and publish it; the limit is that of the picture."""
    picture = draw_ctf_fit(
        spectrum,
        pixel_size_ang=pixel_size_ang,
        defocus_u_ang=estimate.defocus_u_ang,
        defocus_v_ang=estimate.defocus_v_ang,
        astigmatism_angle_deg=estimate.astigmatism_angle_deg,
        phase_shift_deg=estimate.phase_shift_deg,
        resolution_ang=resolution_ang,
        voltage_kv=voltage_kv,
        cs_mm=cs_mm,
        amplitude_contrast=amplitude_contrast,
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
