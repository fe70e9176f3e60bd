"""Cutting particles out of a micrograph and bringing them to a common grey scale."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.fourier import Image


def good_box_px(wanted_px: float) -> int:
    """Return the smallest even side of at least ``wanted_px`` whose Fourier transform is fast."""
    half = max(1, int(np.ceil(wanted_px / 2 - 1e-9)))
    return 2 * int(fft.next_fast_len(half, real=True))


@dataclass(frozen=True)
class Boxes:
    """Boxes cut out of an image.

    Attributes
    ----------
    images
        ``(m, box, box)``.
    centre_yx_px
        ``(m, 2)``: the true centres, on whole pixels.
    kept
        ``(n,)``: which of the points have a box.
    n_padded
        How many of the boxes leave the image, so that what is outside was filled.
    """

    images: Image
    centre_yx_px: NDArray[np.int64]
    kept: NDArray[np.bool_]
    n_padded: int


def cut_boxes_2d(image: Image, yx_px: NDArray[np.float64], *, box_px: int, pad: bool = False) -> Boxes:
    """Cut a box around each point, moved to the nearest whole pixel so that no pixel is interpolated.

    Parameters
    ----------
    image
        ``(h, w)``.
    yx_px
        ``(n, 2)``.
    box_px
        Side of the boxes, even; the centre is pixel ``box_px // 2``.
    pad
        Boxes that leave the image get the nearest pixel of the image where they are outside, as in RELION; those that are
        wholly outside are left out. Otherwise all boxes that leave the image are left out.

    Raises
    ------
    ValueError
        The box is odd, not positive, or larger than the image.
    """
    if box_px < 2 or box_px % 2:
        raise ValueError(f"box of {box_px} px: it must be even and at least 2")
    if box_px > min(image.shape):
        raise ValueError(f"a box of {box_px} px does not fit into the image of {image.shape[0]} x {image.shape[1]} px")
    centre = np.floor(np.asarray(yx_px, dtype=np.float64).reshape(-1, 2) + 0.5).astype(np.int64)  # (n, 2)
    first = centre - box_px // 2
    size = np.array(image.shape)
    inside = np.all((first >= 0) & (first + box_px <= size), axis=1)
    kept = np.all((first + box_px > 0) & (first < size), axis=1) if pad else inside
    boxes = np.empty((int(kept.sum()), box_px, box_px), dtype=image.dtype)
    side = np.arange(box_px)
    for box, (row, column) in zip(boxes, first[kept], strict=True):
        rows, columns = (np.clip(start + side, 0, end - 1) for start, end in zip((row, column), image.shape, strict=True))
        box[:] = image[rows[:, None], columns]
    return Boxes(boxes, centre[kept], kept, int(np.count_nonzero(kept & ~inside)))


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
    median = np.median(boxes, axis=(-2, -1), keepdims=True).astype(boxes.dtype)
    clean: Image = np.where(np.abs(boxes - mean) > level * deviation, median, boxes)
    return clean


def outside_disc_2d(box_px: int, *, radius_px: float) -> NDArray[np.bool_]:
    """Return ``(b, b)``, true outside a disc about pixel ``box_px // 2``.

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
    return outside


def remove_ramp_2d(boxes: Image, *, radius_px: float) -> Image:
    """Subtract from each box ``(..., b, b)`` the plane that fits its pixels outside a disc of ``radius_px`` best."""
    box_px = boxes.shape[-1]
    outside = outside_disc_2d(box_px, radius_px=radius_px)
    along = (np.arange(box_px) - box_px // 2) / box_px
    y, x = np.meshgrid(along, along, indexing="ij")
    terms = np.stack([np.ones_like(y), y, x])  # (3, b, b)
    solve = np.linalg.pinv(terms[:, outside].T)  # (3, m)
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
