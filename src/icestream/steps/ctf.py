"""Estimating the contrast transfer function of micrographs."""

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from icestream.algorithms.ctf_fit import CtfEstimate, fit_ctf
from icestream.algorithms.ctf_picture import draw_ctf_fit
from icestream.algorithms.spectrum import power_spectra, spectrum_tile_px
from icestream.errors import ItemError
from icestream.flow import Context, Field, Params, step
from icestream.io.image import read_image
from icestream.io.preview import write_preview
from icestream.records import Acquisition, CtfFit, Micrograph
from icestream.units import Angstrom, Degree, Micrometer

_MAX_CURVE_POINTS = 200


class CtfParams(Params):
    """How the contrast transfer function is fitted."""

    defocus_um: tuple[Micrometer, Micrometer] = Field(
        (0.3, 5.0), description="Search range of the mean defocus (underfocus is positive)", json_schema_extra={"unit": "µm"}
    )
    max_astigmatism_ang: Angstrom = Field(3000.0, gt=0, description="Largest difference of the two defocus values to search")
    resolution_ang: tuple[Angstrom, Angstrom] = Field(
        (30.0, 4.0), description="Low and high end of the fitted frequency range", json_schema_extra={"unit": "Å"}
    )
    phase_shift_deg: tuple[Degree, Degree] | None = Field(
        None,
        description="Search range of the phase shift of a phase plate; unset: none is fitted",
        json_schema_extra={"unit": "°"},
    )
    tile_ang: Angstrom = Field(1000.0, ge=100, le=4000, description="Side of the spectrum tiles; wider resolves finer Thon rings")

    @model_validator(mode="after")
    def _check(self) -> "CtfParams":
        if not 0 < self.defocus_um[0] < self.defocus_um[1]:
            raise ValueError(f"defocus_um is {self.defocus_um}; give the lower value first, both above 0")
        if not self.resolution_ang[0] > self.resolution_ang[1] > 0:
            raise ValueError(f"resolution_ang is {self.resolution_ang}; give the low resolution (the larger number) first")
        if self.phase_shift_deg is not None and not self.phase_shift_deg[0] <= self.phase_shift_deg[1]:
            raise ValueError(f"phase_shift_deg is {self.phase_shift_deg}; give the lower value first")
        return self


@step.map("ctf", version=1, reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"))
def estimate_ctf(micrograph: Micrograph, params: CtfParams, acquisition: Acquisition, ctx: Context) -> CtfFit:
    """Fit defocus, astigmatism and (optionally) phase shift to the power spectrum of one micrograph.

    The sum without dose weighting is used where there is one, for its stronger rings at high frequency.

    Raises
    ------
    ItemError
        If an acquisition value is unset, or the image cannot be fitted.
    """
    microscope = {name: acquisition.need(name) for name in ("voltage_kv", "cs_mm", "amplitude_contrast")}
    pixel_size_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    ref = micrograph.unweighted or micrograph.image
    image = read_image(ctx.path(ref))  # (h, w)
    try:
        tile_px = spectrum_tile_px((image.shape[0], image.shape[1]), pixel_size_ang=pixel_size_ang, tile_ang=params.tile_ang)
        spectra = power_spectra(image, tile_px=tile_px, n_sets=2)  # (2, tile, tile // 2 + 1)
        estimate = fit_ctf(
            spectra,
            pixel_size_ang=pixel_size_ang,
            defocus_um=params.defocus_um,
            astigmatism_ang=params.max_astigmatism_ang,
            resolution_ang=params.resolution_ang,
            phase_shift_deg=params.phase_shift_deg,
            **microscope,
        )
    except ValueError as error:
        raise ItemError(f"{ref}: the CTF cannot be fitted: {error}") from error
    picture = draw_ctf_fit(
        spectra.mean(axis=0),
        pixel_size_ang=pixel_size_ang,
        defocus_u_ang=estimate.defocus_u_ang,
        defocus_v_ang=estimate.defocus_v_ang,
        astigmatism_angle_deg=estimate.astigmatism_angle_deg,
        phase_shift_deg=estimate.phase_shift_deg,
        resolution_ang=params.resolution_ang[1],
        **microscope,
    )
    with ctx.publish("_ctf.png") as out:
        write_preview(out.path, picture, max_px=512)
    return _record(estimate, spectrum=out.ref)


def _record(estimate: CtfEstimate, *, spectrum: str) -> CtfFit:
    n_rings = estimate.frequency_per_ang.size
    kept = np.unique(np.linspace(0, n_rings - 1, min(n_rings, _MAX_CURVE_POINTS)).round().astype(int))
    return CtfFit(
        defocus_u_ang=round(estimate.defocus_u_ang, 2),
        defocus_v_ang=round(estimate.defocus_v_ang, 2),
        astigmatism_angle_deg=round(estimate.astigmatism_angle_deg, 2),
        phase_shift_deg=round(estimate.phase_shift_deg, 2),
        score=round(estimate.score, 4),
        resolution_ang=round(estimate.resolution_ang, 3),
        defocus_error_ang=round(estimate.defocus_error_ang, 2),
        spectrum=spectrum,
        frequency_per_ang=_rounded(estimate.frequency_per_ang[kept], digits=5),
        profile=_rounded(estimate.profile[kept], digits=4),
        profile_fit=_rounded(estimate.profile_fit[kept], digits=4),
        correlation=_rounded(estimate.correlation[kept], digits=3),
    )


def _rounded(curve: NDArray[np.float64], *, digits: int) -> list[float]:
    return [round(value, digits) for value in curve.tolist()]
