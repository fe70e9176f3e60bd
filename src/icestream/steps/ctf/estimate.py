"""Estimating the contrast transfer function of micrographs."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from icestream.algorithms.ctf.fit import fit_ctf
from icestream.algorithms.spectra.periodogram import periodogram, periodogram_tile_px
from icestream.algorithms.spectra.spectrum import power_spectra, spectrum_tile_px
from icestream.flow import Angstrom, Context, Degree, Field, ItemError, Micrometer, Params, step
from icestream.records import ROHOU_2015, ZHANG_2016, Acquisition, CtfFit, Method, Micrograph, PowerSpectra, Text
from icestream.steps.ctf.io import CtfImage, publish_picture, read_for_ctf, record_of
from icestream.steps.motion.movie_spectra import read_power_spectra


class CtfRanges(TypedDict):
    """The ranges of a fit, as the CTF functions name them."""

    defocus_um: tuple[float, float]
    astigmatism_ang: float
    resolution_ang: tuple[float, float]
    phase_shift_deg: tuple[float, float] | None


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

    def ranges(self) -> CtfRanges:
        """Return what a fit is told of these."""
        return CtfRanges(
            defocus_um=self.defocus_um,
            astigmatism_ang=self.max_astigmatism_ang,
            resolution_ang=self.resolution_ang,
            phase_shift_deg=self.phase_shift_deg,
        )

    @model_validator(mode="after")
    def _check(self) -> "CtfParams":
        if not 0 < self.defocus_um[0] < self.defocus_um[1]:
            raise ValueError(f"defocus_um is {self.defocus_um}; give the lower value first, both above 0")
        if not self.resolution_ang[0] > self.resolution_ang[1] > 0:
            raise ValueError(f"resolution_ang is {self.resolution_ang}; give the low resolution (the larger number) first")
        if self.phase_shift_deg is not None and not self.phase_shift_deg[0] <= self.phase_shift_deg[1]:
            raise ValueError(f"phase_shift_deg is {self.phase_shift_deg}; give the lower value first")
        return self


_FINE_TILE_ANG = 2000.0
"""Tiles of the spectrum that decides: wide enough for the finest rings, and for a few tiles to make up a large micrograph."""


@step.map(
    "ctf",
    version=4,
    reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"),
    method=Method(
        (Text("Defocus and astigmatism were fitted to power spectra of tiles of {tile_ang} Å."),),
        (
            ROHOU_2015,
            ZHANG_2016,
        ),
    ),
)
def estimate_ctf(
    micrograph: Micrograph,
    params: CtfParams,
    acquisition: Acquisition,
    ctx: Context,
    *,
    spectra: PowerSpectra | None = None,
) -> CtfFit:
    """Fit defocus, astigmatism and (optionally) phase shift to the power spectrum of one micrograph.

    The spectrum of overlapping tiles proposes and judges; one of the whole micrograph, of which nothing is lost, decides.
    The sum without dose weighting is used where there is one, for its stronger rings at high frequency. With `spectra`, all of
    it is fitted to those of groups of frames instead, with tiles as wide as they have them.

    Raises
    ------
    ItemError
        If an acquisition value is unset, or the image cannot be fitted.
    """
    image = read_for_ctf(micrograph, acquisition, ctx)
    pixel_size_ang = image.pixel_size_ang
    try:
        averaged, fine = _spectra_of(image, params.tile_ang) if spectra is None else read_power_spectra(spectra, micrograph, ctx)
        estimate = fit_ctf(averaged, fine_spectrum=fine, pixel_size_ang=pixel_size_ang, **params.ranges(), **image.microscope)
    except ValueError as error:
        raise ItemError(f"{image.name}: the CTF cannot be fitted: {error}") from error
    picture = publish_picture(
        estimate, averaged.mean(axis=0), ctx, suffix="_ctf.png", image=image, resolution_ang=params.resolution_ang[1]
    )
    return record_of(estimate, estimator="least_squares", spectrum=picture)


def _spectra_of(image: CtfImage, tile_ang: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return spectra of two sets of tiles ``(2, tile, tile // 2 + 1)``, and a fine one ``(fine, fine // 2 + 1)``."""
    tile_px = spectrum_tile_px(image.shape, pixel_size_ang=image.pixel_size_ang, tile_ang=tile_ang)
    fine_ang = max(_FINE_TILE_ANG, tile_ang)
    fine_px = periodogram_tile_px(image.shape, pixel_size_ang=image.pixel_size_ang, tile_ang=fine_ang)
    return power_spectra(image.pixels, tile_px=tile_px, n_sets=2), periodogram(image.pixels, tile_px=fine_px)
