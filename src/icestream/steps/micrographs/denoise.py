"""Denoised previews of micrographs, from halves of the frames or from the CTF."""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.micrograph.denoise import (
    Denoised,
    choose_tile_px,
    denoise_by_ctf_2d,
    denoise_halves_2d,
    reduce_to_pixel_2d,
)
from icestream.flow import Angstrom, Context, Field, ItemError, Params, step
from icestream.io.image import read_image, write_mrc
from icestream.io.preview import write_preview
from icestream.records import CTF_COLUMNS, Acquisition, CtfFit, DenoisedMicrograph, FileRef, Micrograph

_PREVIEW_PX = 1024


class DenoiseParams(Params):
    """How far the image is reduced."""

    denoised_pixel_ang: Angstrom = Field(
        4.0, ge=0.5, le=20, description="Pixel size of the denoised image, about; it is never finer"
    )


@step.map("denoise_preview", version=1, reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"), memory_gb=2.0)
def denoise_preview(
    micrograph: Micrograph, ctf: CtfFit | None, params: DenoiseParams, acquisition: Acquisition, ctx: Context
) -> DenoisedMicrograph:
    """Filter a micrograph so that particles are seen, by what its halves or its CTF say of signal and noise.

    The sums of even and odd frames are used where there are any, else the CTF.

    Raises
    ------
    ItemError
        If the pixel size is unset; or there are neither halves nor a CTF with a zero in reach, or values for it are unset.
    """
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    factor = max(params.denoised_pixel_ang / pixel_ang, 1.0)
    if micrograph.even is not None and micrograph.odd is not None:
        even, odd = (_read(ref, factor, ctx) for ref in (micrograph.even, micrograph.odd))
        found, halves = denoise_halves_2d(even, odd), True
    elif ctf is not None:
        found, halves = _denoise_by_ctf(_read(micrograph.image, factor, ctx), micrograph, ctf, acquisition), False
    else:
        raise ItemError("denoising needs the sums of even and odd frames (motion can write them), or a CTF: connect one")
    height, width = found.image.shape
    reduced_by = micrograph.width_px / width
    with ctx.publish("_denoised.mrc") as image:
        write_mrc(image.path, found.image, pixel_size_ang=pixel_ang * reduced_by, dtype="float16")
    with ctx.publish("_denoised.png") as picture:
        write_preview(picture.path, found.image, max_px=_PREVIEW_PX, percentiles=(0.5, 99.5))
    return DenoisedMicrograph(
        image=image.ref,
        height_px=height,
        width_px=width,
        bin=micrograph.bin * reduced_by,
        method="halves" if halves else "ctf",
        seen_ang=round(pixel_ang * reduced_by / found.seen_per_px, 2) if found.seen_per_px > 0 else None,
        picture=picture.ref,
    )


def _read(ref: FileRef, factor: float, ctx: Context) -> NDArray[np.float32]:
    image: NDArray[np.float32] = reduce_to_pixel_2d(read_image(ctx.path(ref)), factor=factor)
    return image


def _denoise_by_ctf(image: NDArray[np.float32], micrograph: Micrograph, ctf: CtfFit, acquisition: Acquisition) -> Denoised:
    microscope = {name: acquisition.need(name) for name in ("voltage_kv", "cs_mm", "amplitude_contrast")}
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin * micrograph.width_px / image.shape[1]
    tile_px = choose_tile_px((image.shape[0], image.shape[1]))
    fitted = {column.name: getattr(ctf, column.name) for column in CTF_COLUMNS}
    try:
        return denoise_by_ctf_2d(image, ctf_2d(tile_px, tile_px, pixel_size_ang=pixel_ang, **microscope, **fitted))
    except ValueError as error:
        raise ItemError(f"{micrograph.image}: cannot be denoised: {error}") from error
