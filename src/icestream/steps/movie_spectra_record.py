"""The record of `movie_spectra`, and how its files are read."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from icestream.errors import ItemError
from icestream.flow import Context
from icestream.io.image import read_image, read_stack
from icestream.records import FileRef, Micrograph, Record
from icestream.units import WholePixels


class PowerSpectra(Record):
    """Power spectra of a movie, averaged over groups of its frames; frequencies are unshifted, half of them along x."""

    spectra: FileRef = Field(description="Two images (tile, tile / 2 + 1): the spectra of two halves of the tiles")
    fine_spectrum: FileRef = Field(description="One image (fine, fine / 2 + 1): the spectrum of tiles as wide as can be")
    tile_px: WholePixels = Field(description="Side of the tiles of the two, in pixels of the micrograph")
    fine_px: WholePixels = Field(description="Side of the tiles of the one")
    bin: float = Field(gt=0, description="Size of these pixels relative to the raw pixel")
    n_groups: int = Field(ge=1, description="Groups of frames that were averaged")
    frames_per_group: float = Field(ge=1, description="Frames of a group, on average (EER: after camera frames were added up)")
    group_e_per_ang2: float | None = Field(None, description="Dose of a group, on average; unset where that of a frame is")


def read_power_spectra(
    spectra: PowerSpectra, micrograph: Micrograph, ctx: Context
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the two spectra ``(2, tile, tile // 2 + 1)`` and the fine one ``(fine, fine // 2 + 1)`` of a micrograph.

    Raises
    ------
    ItemError
        They have other pixels than the micrograph.
    """
    if spectra.bin != micrograph.bin:
        raise ItemError(f"{spectra.spectra}: pixels are binned by {spectra.bin:g}, those of the micrograph by {micrograph.bin:g}")
    return read_stack(ctx.path(spectra.spectra)), read_image(ctx.path(spectra.fine_spectrum))
