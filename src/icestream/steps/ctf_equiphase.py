"""A second estimate of the contrast transfer function, independent of the first."""

from icestream.algorithms.ctf_equiphase import fit_ctf_equiphase
from icestream.algorithms.multitaper import multitaper_spectra, multitaper_tile_px
from icestream.errors import ItemError
from icestream.flow import Context, Field, step
from icestream.io.image import read_image
from icestream.records import Acquisition, CtfFit, Micrograph
from icestream.steps.ctf import CtfParams
from icestream.steps.ctf_record import publish_picture, record_of
from icestream.units import Angstrom


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


@step.map("ctf_equiphase", version=2, reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"))
def estimate_ctf_equiphase(micrograph: Micrograph, params: CtfEquiphaseParams, acquisition: Acquisition, ctx: Context) -> CtfFit:
    """Fit the CTF of one micrograph along its lines of equal phase, to compare with `ctf`.

    Spectrum and objective are others than those of `ctf`, so that both are rarely wrong alike. The sum without dose weighting is
    used where there is one, for its stronger rings at high frequency.

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
        shape = (image.shape[0], image.shape[1])
        tile_px = multitaper_tile_px(shape, pixel_size_ang=pixel_size_ang, tile_ang=params.tile_ang)
        spectra = multitaper_spectra(image, tile_px=tile_px)  # (2, tile, tile // 2 + 1)
        estimate = fit_ctf_equiphase(
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
    picture = publish_picture(
        estimate,
        spectra.mean(axis=0),
        ctx,
        suffix="_ctf_equiphase.png",
        pixel_size_ang=pixel_size_ang,
        resolution_ang=max(params.resolution_ang[1], 4.0),
        **microscope,
    )
    return record_of(estimate, estimator="equiphase", spectrum=picture)
