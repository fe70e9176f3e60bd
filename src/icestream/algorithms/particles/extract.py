"""Cutting particles out of a micrograph and bringing them to a common grey scale."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.ctf.transfer import ctf_2d, electron_wavelength_ang
from icestream.algorithms.fourier import Image, resize_spectrum_2d, shift_spectrum_2d


def good_box_px(wanted_px: float) -> int:
    """Return the smallest even side of at least ``wanted_px`` whose Fourier transform is fast."""
    half = max(1, int(np.ceil(wanted_px / 2 - 1e-9)))
    return 2 * int(fft.next_fast_len(half, real=True))


@dataclass(frozen=True)
class Places:
    """Where boxes are cut out of an image.

    Attributes
    ----------
    centre_yx_px
        ``(m, 2)``: the centres of the boxes, on whole pixels.
    kept
        ``(n,)``: which of the points have a box.
    n_padded
        How many of the boxes leave the image, so that what is outside must be filled.
    """

    centre_yx_px: NDArray[np.int64]
    kept: NDArray[np.bool_]
    n_padded: int


def place_boxes(yx_px: NDArray[np.float64], *, shape: tuple[int, int], box_px: int, pad: bool = False) -> Places:
    """Find the box of each point, its centre moved to the nearest whole pixel.

    Parameters
    ----------
    yx_px
        ``(n, 2)``.
    shape
        Height and width of the image.
    box_px
        Side of the boxes, even; the centre is pixel ``box_px // 2``.
    pad
        Boxes that leave the image are kept, but those that are wholly outside are not. Otherwise all that leave it are left out.

    Raises
    ------
    ValueError
        The box is odd, not positive, or larger than the image.
    """
    if box_px < 2 or box_px % 2:
        raise ValueError(f"box of {box_px} px: it must be even and at least 2")
    if box_px > min(shape):
        raise ValueError(f"a box of {box_px} px does not fit into the image of {shape[0]} x {shape[1]} px")
    centre = np.floor(np.asarray(yx_px, dtype=np.float64).reshape(-1, 2) + 0.5).astype(np.int64)  # (n, 2)
    first = centre - box_px // 2
    size = np.array(shape)
    inside = np.all((first >= 0) & (first + box_px <= size), axis=1)
    kept = np.all((first + box_px > 0) & (first < size), axis=1) if pad else inside
    return Places(centre[kept], kept, int(np.count_nonzero(kept & ~inside)))


def cut_box_2d(image: Image, centre_yx_px: tuple[int, int], *, side_px: int, fill: Literal["edge", "mirror"] = "edge") -> Image:
    """Cut a square out of an image ``(h, w)``, so that pixel ``side_px // 2`` is the centre.

    What is outside of the image gets the nearest pixel of the image, as in RELION, or its mirror image.
    """
    first = [centre - side_px // 2 for centre in centre_yx_px]
    if all(start >= 0 and start + side_px <= end for start, end in zip(first, image.shape, strict=True)):
        return image[first[0] : first[0] + side_px, first[1] : first[1] + side_px]
    indices = []
    for start, end in zip(first, image.shape, strict=True):
        index = np.arange(start, start + side_px)
        if fill == "mirror":
            index = np.where(index < 0, -1 - index, np.where(index >= end, 2 * end - 1 - index, index))
        indices.append(np.clip(index, 0, end - 1))
    return image[indices[0][:, None], indices[1]]


@dataclass(frozen=True)
class Window:
    """What is cut around a box so that its edges are right after filtering: sides before and after Fourier cropping."""

    side_px: int
    scaled_side_px: int


def plan_window(box_px: int, *, scaled_px: int, margin_px: int) -> Window:
    """Return a window of at least ``margin_px`` more than the box on each side, which is scaled by exactly the same factor.

    Without a margin it is the box. Sides are even, and the transform of the scaled window is fast where that costs little.
    """
    if not margin_px:
        return Window(box_px, scaled_px)
    common = math.gcd(box_px, scaled_px)
    unit, scaled_unit = box_px // common, scaled_px // common
    fewest = math.ceil((box_px + 2 * margin_px) / unit)
    fitting = [n for n in range(fewest, fewest + max(2, fewest // 4) + 1) if not (n * unit % 2 or n * scaled_unit % 2)]
    best = min(fitting, key=lambda n: (fft.next_fast_len(n * unit, real=True) != n * unit, n))
    return Window(best * unit, best * scaled_unit)


def delocalisation_ang(resolution_ang: float, *, defocus_ang: float, voltage_kv: float, cs_mm: float) -> float:
    """Return how far defocus and spherical aberration move detail of ``resolution_ang``: the gradient of the phase of the CTF.

    With the frequency ``g`` it is ``|λ Δf g - Cs λ³ g³|``, here its largest value up to ``g`` (Zemlin 1978; RELION's boxes are
    chosen by it).
    """
    wavelength_ang, cs_ang = electron_wavelength_ang(voltage_kv), cs_mm * 1e7
    g = np.linspace(0, 1 / resolution_ang, 64)
    return float(np.abs(wavelength_ang * defocus_ang * g - cs_ang * wavelength_ang**3 * g**3).max())


def filter_window_2d(
    window: Image,
    *,
    scaled_px: int,
    box_px: int,
    moved_yx_px: tuple[float, float] = (0.0, 0.0),
    factor: Image | None = None,
) -> Image:
    """Fourier-crop a window, move it, multiply its spectrum, and cut out its middle.

    Parameters
    ----------
    window
        ``(side, side)``.
    scaled_px
        Side of the window after Fourier cropping.
    box_px
        Side of what is cut out of the middle of that.
    moved_yx_px
        By how many pixels of the window its content is moved.
    factor
        ``(scaled, scaled // 2 + 1)``, of the spectrum.
    """
    side_px = window.shape[-1]
    spectrum = resize_spectrum_2d(
        fft.rfft2(window), shape=(side_px, side_px), new_shape=(scaled_px, scaled_px)
    )  # (scaled, scaled // 2 + 1)
    if any(moved_yx_px):
        scale = scaled_px / side_px
        spectrum = shift_spectrum_2d(spectrum, (moved_yx_px[0] * scale, moved_yx_px[1] * scale), width=scaled_px)
    if factor is not None:
        spectrum *= factor
    first = (scaled_px - box_px) // 2
    filtered: Image = fft.irfft2(spectrum, s=(scaled_px, scaled_px))[first : first + box_px, first : first + box_px]
    return filtered.astype(window.dtype, copy=False)


def flip_phases_2d(
    image: Image,
    *,
    margin_px: int,
    pixel_size_ang: float,
    defocus_u_ang: float,
    defocus_v_ang: float,
    astigmatism_angle_deg: float,
    voltage_kv: float,
    cs_mm: float,
    amplitude_contrast: float,
    phase_shift_deg: float = 0.0,
) -> Image:
    """Make the CTF of a micrograph positive or negative throughout, as it is at low frequency: dark protein stays dark.

    The whole micrograph is filtered, so what the defocus has moved out of a particle's box is moved back into it.

    Parameters
    ----------
    image
        ``(h, w)``.
    margin_px
        Mirrored pixels added at each border for the transform.
    pixel_size_ang, defocus_u_ang, defocus_v_ang, astigmatism_angle_deg, voltage_kv, cs_mm, amplitude_contrast, phase_shift_deg
        The CTF, as in `icestream.algorithms.ctf.transfer.ctf_2d`.
    """
    margin = min(margin_px, *image.shape)
    padded = np.pad(image, margin, mode="symmetric")
    height, width = (fft.next_fast_len(side, real=True) for side in padded.shape)
    padded = np.pad(padded, ((0, height - padded.shape[0]), (0, width - padded.shape[1])), mode="symmetric")  # (height, width)
    ctf = ctf_2d(
        height,
        width,
        pixel_size_ang=pixel_size_ang,
        defocus_u_ang=defocus_u_ang,
        defocus_v_ang=defocus_v_ang,
        astigmatism_angle_deg=astigmatism_angle_deg,
        voltage_kv=voltage_kv,
        cs_mm=cs_mm,
        amplitude_contrast=amplitude_contrast,
        phase_shift_deg=phase_shift_deg,
    )
    spectrum = fft.rfft2(padded)
    spectrum *= np.where(ctf > 0, np.float32(-1), np.float32(1))
    flipped: Image = fft.irfft2(spectrum, s=(height, width))[margin : margin + image.shape[0], margin : margin + image.shape[1]]
    return flipped.astype(image.dtype, copy=False)


def remove_dust_2d(boxes: Image, *, level: float) -> Image:
    """Replace pixels more than ``level`` standard deviations off the mean of their box ``(..., b, b)`` by its median."""
    mean = boxes.mean(axis=(-2, -1), keepdims=True)
    deviation = boxes.std(axis=(-2, -1), keepdims=True)
    dust = np.abs(boxes - mean) > level * deviation
    if not dust.any():
        return boxes
    median = np.median(boxes, axis=(-2, -1), keepdims=True).astype(boxes.dtype)
    clean: Image = np.where(dust, median, boxes)
    return clean


@lru_cache(maxsize=16)
def outside_disc_2d(box_px: int, *, radius_px: float) -> NDArray[np.bool_]:
    """Return ``(b, b)``, read-only, true outside a disc about pixel ``box_px // 2``.

    Raises
    ------
    ValueError
        Fewer than sixteen pixels would be left.
    """
    offset = np.arange(box_px) - box_px // 2
    outside: NDArray[np.bool_] = np.hypot(offset[:, None], offset[None, :]) > radius_px
    if np.count_nonzero(outside) < 16:
        raise ValueError(
            f"a disc of radius {radius_px:g} px leaves no background in a box of {box_px} px; the box must be larger"
        )
    outside.flags.writeable = False
    return outside


@lru_cache(maxsize=16)
def _fit_plane(box_px: int, radius_px: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the terms of a plane ``(3, b, b)``, and what gives their coefficients from the pixels outside a disc ``(3, m)``."""
    along = (np.arange(box_px) - box_px // 2) / box_px
    y, x = np.meshgrid(along, along, indexing="ij")
    terms = np.stack([np.ones_like(y), y, x])  # (3, b, b)
    solve = np.linalg.pinv(terms[:, outside_disc_2d(box_px, radius_px=radius_px)].T)
    return terms, solve.astype(np.float64, copy=False)


def remove_ramp_2d(boxes: Image, *, radius_px: float) -> Image:
    """Subtract from each box ``(..., b, b)`` the plane that fits its pixels outside a disc of ``radius_px`` best."""
    terms, solve = _fit_plane(boxes.shape[-1], radius_px)
    outside = outside_disc_2d(boxes.shape[-1], radius_px=radius_px)
    coefficients = boxes[..., outside].astype(np.float64) @ solve.T  # (..., 3)
    plane = np.tensordot(coefficients, terms, axes=1)  # (..., b, b)
    return (boxes - plane).astype(boxes.dtype, copy=False)


def normalise_background_2d(boxes: Image, *, radius_px: float) -> Image:
    """Bring each box ``(..., b, b)`` to mean 0 and standard deviation 1 outside a disc of ``radius_px``.

    A box without any variation there becomes 0 on average and keeps its scale.
    """
    outside = outside_disc_2d(boxes.shape[-1], radius_px=radius_px)
    background = boxes[..., outside].astype(np.float64)  # (..., m)
    mean = background.mean(axis=-1)[..., None, None]
    deviation = background.std(axis=-1)[..., None, None]
    scaled: Image = (boxes - mean) / np.where(deviation > 0, deviation, 1.0)
    return scaled.astype(boxes.dtype, copy=False)
