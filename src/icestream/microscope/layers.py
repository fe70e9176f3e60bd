"""Specimen that is not a plane sheet at one height: tilted, bent, and as thick as ice is.

Every scatterer is imaged with the defocus of its own place: that of the micrograph, the offset of the surface there, and its
depth in the ice. Scatterers between two computed levels of defocus count to both in proportion (linear interpolation of the
image; at 40 Å between levels it damps amplitudes by at most 2 % down to 2.5 Å at 300 kV). Nothing here knows what a spectrum of
thick or tilted ice looks like. A tilt changes heights only; the foreshortening of the field is left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

_LEVEL_STEP_ANG = 40.0


@dataclass(frozen=True)
class Surface:
    """How far the defocus at a place differs from that of the micrograph: a slope and a dome about the centre of the field.

    Attributes
    ----------
    tilt_deg, tilt_axis_deg
        Angle of the slope, and direction of the tilt axis from x towards y; the defocus grows on the side that lies a quarter
        turn (x towards y) from the axis.
    bend_ang
        How much more defocus the corners have than the centre, the slope aside.
    shape
        Of the field in pixels.
    pixel_size_ang
        Of the field.
    """

    tilt_deg: float
    tilt_axis_deg: float
    bend_ang: float
    shape: tuple[int, int]
    pixel_size_ang: float

    @property
    def is_flat(self) -> bool:
        """Whether the defocus is the same everywhere."""
        return self.tilt_deg == 0 and self.bend_ang == 0

    def offset_ang(self, y_px: NDArray[np.floating] | float, x_px: NDArray[np.floating] | float) -> NDArray[np.float64]:
        """Return what is added to the defocus at ``(y, x)``; its mean over the field is zero."""
        y = np.asarray(y_px, np.float64) - 0.5 * (self.shape[0] - 1)
        x = np.asarray(x_px, np.float64) - 0.5 * (self.shape[1] - 1)
        axis = np.deg2rad(self.tilt_axis_deg)
        along = (y * np.cos(axis) - x * np.sin(axis)) * self.pixel_size_ang
        share = (y * y + x * x) / (0.25 * (self.shape[0] ** 2 + self.shape[1] ** 2))
        offset: NDArray[np.float64] = np.tan(np.deg2rad(self.tilt_deg)) * along + self.bend_ang * (share - 1.0 / 3.0)
        return offset


def split_into_levels(offsets_ang: NDArray[np.floating]) -> list[tuple[float, NDArray[np.float64]]]:
    """Return levels of defocus, and how much of each offset ``(n,)`` counts to each level; the shares of one offset sum to 1."""
    offsets = np.asarray(offsets_ang, np.float64)
    low = float(offsets.min())
    levels = low + _LEVEL_STEP_ANG * np.arange(int(np.ceil((float(offsets.max()) - low) / _LEVEL_STEP_ANG)) + 1)
    shares = [np.maximum(1.0 - np.abs(offsets - level) / _LEVEL_STEP_ANG, 0.0) for level in levels]
    return [(float(level), share) for level, share in zip(levels, shares, strict=True) if share.any()]


def slice_depths_ang(thickness_ang: float, n_slices: int) -> NDArray[np.float64]:
    """Return the middles of equal slices of a sheet about depth 0: ``(n_slices,)``."""
    depths: NDArray[np.float64] = ((np.arange(n_slices) + 0.5) / n_slices - 0.5) * thickness_ang
    return depths


def white_levels(
    canvas: tuple[int, int],
    origin_yx: tuple[int, int],
    *,
    surface: Surface,
    depths_ang: NDArray[np.float64],
    generator: np.random.Generator,
) -> Iterator[tuple[float, NDArray[np.complex64]]]:
    """Yield a level of defocus and the spectrum of the white noise that lies there, until all slices are drawn.

    Each slice is independent noise of variance 1 over the number of slices.

    Parameters
    ----------
    canvas, origin_yx
        Shape of the noise, and where pixel (0, 0) of the field lies in it.
    surface
        Offset of the defocus over the field.
    depths_ang
        ``(n_slices,)`` depth of each slice.
    generator
        Draws the noise, slice by slice.
    """
    scale = np.float32(len(depths_ang) ** -0.5)
    if surface.is_flat:
        for depth in depths_ang.tolist():
            yield depth, fft.rfft2(generator.standard_normal(canvas, dtype=np.float32)) * scale
        return
    y, x = np.mgrid[: canvas[0], : canvas[1]]
    offset = surface.offset_ang(y - origin_yx[0], x - origin_yx[1])  # (H, W)
    low = float(offset.min() + depths_ang.min())
    n_levels = int((float(offset.max() + depths_ang.max()) - low) / _LEVEL_STEP_ANG) + 2
    stack = np.zeros((n_levels, *canvas), np.float32)
    for depth in depths_ang.tolist():
        noise = generator.standard_normal(canvas, dtype=np.float32) * scale
        place = (offset + depth - low) / _LEVEL_STEP_ANG
        below = place.astype(np.intp)
        part = (place - below).astype(np.float32)
        stack[below, y, x] += (1 - part) * noise
        stack[below + 1, y, x] += part * noise
    for index, image in enumerate(stack):
        yield low + index * _LEVEL_STEP_ANG, fft.rfft2(image)
