"""A micrograph as the picker looks at it: reduced to what tells of a particle, without background and dirt."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.fourier import Image, crop_fourier_2d, frequency_grid_2d
from icestream.algorithms.matched_picker.rings import Field
from icestream.algorithms.micrograph.contamination import mask_contamination_2d, robust_zscore

WORKING_DIAMETER_PX = 24.0
"""The micrograph is reduced until a particle is this wide."""

_MASKED, _CORE_DEPTH, _EDGE_BLUR, _DARKEST, _EDGE_WIDENED = 0.6, 0.4, 0.12, 0.995, 0.1
_SMEARED, _SURELY_SMEARED = 0.35, 4.0
_SMEARED_BAND = (0.5, 6.0)  # periods in a diameter
_NOISE_FLOOR = 0.6


def reduce_micrograph_2d(image: Image, *, diameter_px: float) -> Image:
    """Fourier-crop ``(h, w)`` so that a particle is about 24 pixels wide; an image that is small enough is returned as it is."""
    factor = diameter_px / WORKING_DIAMETER_PX
    if factor <= 1:
        return image
    height, width = (fft.next_fast_len(max(1, round(side / factor)), real=True) for side in image.shape[-2:])
    return crop_fourier_2d(image, new_shape=(height, width))


def remove_background_2d(image: Image, allowed: NDArray[np.bool_], *, diameter_px: float) -> Image:
    """Subtract the local mean of the allowed part of ``(h, w)`` and bring its local noise to one."""
    weight = allowed.astype(np.float32)
    values = np.clip(robust_zscore(image), -6.0, 6.0).astype(np.float32)

    def local_mean(of: Image, sigma_px: float) -> Image:
        near: Image = ndimage.gaussian_filter(weight, sigma_px, mode="reflect", truncate=3.0)
        mean: Image = ndimage.gaussian_filter(of * weight, sigma_px, mode="reflect", truncate=3.0) / (near + np.float32(1e-3))
        return mean

    values = values - local_mean(values, diameter_px)
    fine = values - ndimage.uniform_filter(values, 3, mode="reflect")
    noise = np.sqrt(local_mean(fine * fine, 2 * diameter_px))
    flat: Image = values / np.maximum(noise, max(0.5 * float(np.median(noise)), 1e-6))
    return flat


@dataclass(frozen=True)
class View:
    """A micrograph reduced until a particle of ``diameter_px`` of its own pixels is about 24 wide, without its background.

    Attributes
    ----------
    clear, field
        The micrograph without dirt and its surroundings, and without dirt alone.
    scale_yx
        ``(2,)``, pixels of the micrograph in one of these.
    """

    clear: Field
    field: Field
    diameter_px: float
    scale_yx: NDArray[np.float64]

    @property
    def scale(self) -> float:
        """Mean of the two scales."""
        return float(self.scale_yx.mean())


def _resize_mask(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    row, column = (np.arange(new) * old // new for new, old in zip(shape, mask.shape, strict=True))
    resized: NDArray[np.bool_] = mask[row[:, None], column[None, :]]
    return resized


def view_micrograph_2d(image: Image, *, diameter_px: float, dirt_px: float | None = None) -> View:
    """Prepare ``(h, w)`` for particles of about this diameter; dirt is at least as wide as ``dirt_px``, or as one of them."""
    small = reduce_micrograph_2d(image, diameter_px=diameter_px)
    scale_yx = np.array(image.shape) / np.array(small.shape)
    own_px = diameter_px / float(scale_yx.mean())
    if dirt_px is None or dirt_px <= diameter_px:
        around, dirt = mask_dirt_2d(small, diameter_px=own_px)
    else:
        coarse = reduce_micrograph_2d(image, diameter_px=dirt_px)
        masks = mask_dirt_2d(coarse, diameter_px=dirt_px * coarse.shape[0] / image.shape[0])
        around, dirt = (_resize_mask(mask, small.shape) for mask in masks)
    flat = remove_background_2d(small, ~around, diameter_px=own_px)
    return View(Field.of(flat, ~around), Field.of(flat, ~dirt), own_px, scale_yx)


def mask_dirt_2d(image: Image, *, diameter_px: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Mark contamination that is wider than a particle, with its surroundings and without them: ``(h, w)`` each.

    It ends where the grey value, blurred by an eighth of a diameter, and its slope are again such as particles have.
    """
    around = mask_contamination_2d(image, diameter_px=_MASKED * diameter_px)
    if not around.any() or around.all():
        return around, around
    smooth = ndimage.gaussian_filter(image, _EDGE_BLUR * diameter_px, mode="reflect")
    ice = smooth[~around]
    deviation, slope = np.abs(smooth - np.median(ice)), np.hypot(*np.gradient(smooth))
    odd = (deviation > np.quantile(deviation[~around], _DARKEST)) | (slope > np.quantile(slope[~around], _DARKEST))
    depth = ndimage.distance_transform_edt(np.pad(around, 1, mode="edge"))[1:-1, 1:-1]
    near = ndimage.distance_transform_edt(~around) <= _CORE_DEPTH * diameter_px
    core = ndimage.binary_propagation((depth > _CORE_DEPTH * diameter_px) & odd, mask=near & odd)
    dirt: NDArray[np.bool_] = ndimage.distance_transform_edt(~core) <= _EDGE_WIDENED * diameter_px
    return around | dirt, dirt


def is_smeared(field: Field, *, diameter_px: float) -> bool:
    """Tell whether the exposure drifted by about a particle, so that its spectrum lacks one direction.

    The power above the noise, between half a period and six in a diameter, has a second harmonic over the angle of at least 0.35
    of its mean, and of four times its error.
    """
    rings = field.rings
    period = rings.frequency * diameter_px
    ky, kx = frequency_grid_2d(*field.shape)
    band = ((period > _SMEARED_BAND[0]) & (period < _SMEARED_BAND[1]))[rings.index] & (kx > 0)
    power = (np.abs(field.spectrum[band]) ** 2).astype(np.float64)
    weight = 1 / rings.spread(field.power)[band].astype(np.float64)
    floor = float(field.power[int(_NOISE_FLOOR * len(field.power))])
    turn = np.exp(2j * np.arctan2(ky, kx))[band]
    total = float(np.sum((power - floor) * weight))
    harmonic = float(np.abs(np.sum((power - floor) * weight * turn)))
    error = float(np.sqrt(0.5 * np.sum((power * weight) ** 2)))
    return harmonic > max(_SMEARED * abs(total), _SURELY_SMEARED * error) and total > 0
