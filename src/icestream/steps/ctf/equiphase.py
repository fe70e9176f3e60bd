"""A second estimate of the contrast transfer function, independent of the first."""

from icestream.algorithms.ctf.equiphase_fit import fit_ctf_equiphase
from icestream.algorithms.spectra.multitaper import multitaper_spectra, multitaper_tile_px
from icestream.flow import Angstrom, Context, Field, ItemError, step
from icestream.records import ZHANG_2016, Acquisition, CtfFit, Method, Micrograph, Text
from icestream.steps.ctf.estimate import CtfParams
from icestream.steps.ctf.io import publish_picture, read_for_ctf, record_of


class CtfEquiphaseParams(CtfParams):
    """How the contrast transfer function is fitted."""

    resolution_ang: tuple[Angstrom, Angstrom] = Field(
        (30.0, 3.0), description="Low and high end of the fitted frequency range", json_schema_extra={"unit": "Å"}
    )
    tile_ang: Angstrom = Field(
        1800.0,
        ge=100,
        le=8000,
        description="Side of the spectrum tiles; a micrograph up to one and a half times as wide is one tile",
    )


@step.map(
    "ctf_equiphase",
    version=4,
    reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"),
    method=Method(
        (Text("The CTF was estimated a second time along lines of equal phase, from tiles of {tile_ang} Å."),), (ZHANG_2016,)
    ),
)
def estimate_ctf_equiphase(micrograph: Micrograph, params: CtfEquiphaseParams, acquisition: Acquisition, ctx: Context) -> CtfFit:
    """Fit the CTF of one micrograph along its lines of equal phase, to compare with `ctf`.

    Spectrum and objective are others than those of `ctf`, so that both are rarely wrong alike. The sum without dose weighting is
    used where there is one, for its stronger rings at high frequency.

    Raises
    ------
    ItemError
        If an acquisition value is unset, or the image cannot be fitted.
    """
    image = read_for_ctf(micrograph, acquisition, ctx)
    pixel_size_ang = image.pixel_size_ang
    try:
        tile_px = multitaper_tile_px(image.shape, pixel_size_ang=pixel_size_ang, tile_ang=params.tile_ang)
        spectra = multitaper_spectra(image.pixels, tile_px=tile_px)  # (2, tile, tile // 2 + 1)
        estimate = fit_ctf_equiphase(spectra, pixel_size_ang=pixel_size_ang, **params.ranges(), **image.microscope)
    except ValueError as error:
        raise ItemError(f"{image.name}: the CTF cannot be fitted: {error}") from error
    limit_ang = max(params.resolution_ang[1], 4.0)
    picture = publish_picture(
        estimate, spectra.mean(axis=0), ctx, suffix="_ctf_equiphase.png", image=image, resolution_ang=limit_ang
    )
    return record_of(estimate, estimator="equiphase", spectrum=picture)
