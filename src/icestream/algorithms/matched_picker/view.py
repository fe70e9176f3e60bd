"""A micrograph as the picker looks at it: reduced to what tells of a particle, without background and dirt."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.fourier import Image, frequency_grid_2d, resize_spectrum_2d
from icestream.algorithms.matched_picker.rings import Field, Rings
from icestream.algorithms.micrograph.contamination import mask_contamination_2d, robust_zscore

WORKING_DIAMETER_PX = 24.0
"""The micrograph is reduced until a particle is this wide."""

_MASKED, _CORE_DEPTH, _EDGE_BLUR, _DARKEST, _EDGE_WIDENED = 0.6, 0.4, 0.12, 0.995, 0.1
_SMEARED, _SURELY_SMEARED = 0.35, 4.0
_SMEARED_BAND = (0.5, 6.0)  # periods in a diameter
_NOISE_FLOOR = 0.6
_BLOCKS_IN_SIGMA, _RIDGE = 4, 1e-5
_RIM_SPREADS = 4.0
_OUTER, _COARSE_PERIODS = 0.35, (1.0, 3.0)  # in 1/px, and periods in a diameter
_EMPTIED, _FILLED = 0.005, 0.006


def reduce_micrograph_2d(image: Image, *, diameter_px: float) -> Image:
    """Fourier-crop ``(h, w)`` so that a particle is about 24 pixels wide; an image that is small enough is returned as it is.

    For Fourier an image goes on at its opposite border, and cropping makes ripples along the step there. So the step is taken out
    first: the smooth part of the image that has it, and nothing else (Moisan 2011, J. Math. Imaging Vis. 39, 161).
    """
    factor = diameter_px / WORKING_DIAMETER_PX
    if factor <= 1:
        return image
    shape = (image.shape[0], image.shape[1])
    height, width = (fft.next_fast_len(max(1, round(side / factor)), real=True) for side in shape)
    spectrum = resize_spectrum_2d(fft.rfft2(image), shape=shape, new_shape=(height, width))
    step = _step_spectrum_2d(image, fft.fftfreq(height, 1 / height), np.arange(width // 2 + 1), smooth_px=0.5 * diameter_px)
    small: Image = fft.irfft2(spectrum - step * np.float32(height * width / image.size), s=(height, width))
    return small


def _step_spectrum_2d(
    image: Image, row: NDArray[np.float64], column: NDArray[np.int64], *, smooth_px: float
) -> NDArray[np.complex64]:
    """Return the spectrum of the smooth image with the steps of ``(h, w)`` across its borders, at whole rows and columns of it.

    A step is that of the means within ``smooth_px`` of the border, smoothed along it, and clipped where it is much darker or
    brighter than elsewhere: the rest is noise, and dirt.
    """
    height, width = image.shape
    depth = max(int(smooth_px), 1)
    along_y, along_x = (image[-depth:], image[:depth]), (image[:, -depth:].T, image[:, :depth].T)
    rims = [
        ndimage.gaussian_filter1d(rim.mean(axis=0, dtype=np.float64), smooth_px, mode="nearest") for rim in (*along_y, *along_x)
    ]
    everywhere = np.concatenate(rims)
    middle = float(np.median(everywhere))
    spread = _RIM_SPREADS * float(np.median(np.abs(everywhere - middle)))
    bottom, top, right, left = (np.clip(rim, middle - spread, middle + spread) for rim in rims)
    smooth_y, smooth_x = bottom - top, right - left
    across_y = fft.fft(smooth_y)[column]  # (c,)
    across_x = fft.fft(smooth_x)[row.astype(np.int64) % height]  # (r,)
    turn_y, turn_x = 2 * np.pi * row[:, None] / height, 2 * np.pi * column[None] / width
    step = across_y[None] * (1 - np.exp(1j * turn_y)) + across_x[:, None] * (1 - np.exp(1j * turn_x))
    laplacian = 2 * np.cos(turn_y) + 2 * np.cos(turn_x) - 4
    laplacian[0, 0] = 1.0
    smooth: NDArray[np.complex64] = (step / laplacian).astype(np.complex64)
    return smooth


def remove_background_2d(image: Image, allowed: NDArray[np.bool_], *, diameter_px: float) -> Image:
    """Subtract the local plane of the allowed part of ``(h, w)`` and bring its local noise to one.

    A plane, not the mean: where the ice gets thicker towards the border, the mean of what is inside leaves a rim of blobs.
    """
    values = np.clip(robust_zscore(image), -6.0, 6.0).astype(np.float32)
    values = values - fit_local_planes_2d(values, allowed, sigma_px=diameter_px, slopes=True)
    fine = values - ndimage.uniform_filter(values, 3, mode="reflect")
    noise = np.sqrt(np.maximum(fit_local_planes_2d(fine * fine, allowed, sigma_px=2 * diameter_px, slopes=False), 0))
    flat: Image = values / np.maximum(noise, max(0.5 * float(np.median(noise)), 1e-6))
    return flat


def fit_local_planes_2d(values: Image, allowed: NDArray[np.bool_], *, sigma_px: float, slopes: bool) -> Image:
    """Return at each place of ``(h, w)`` the value of the plane through the allowed part around it, with Gaussian weights.

    It is fitted on blocks a quarter of ``sigma_px`` wide and interpolated between them (local linear regression: Fan 1992, J. Am.
    Stat. Assoc. 87, 998). Without ``slopes`` it is the local mean.
    """
    block = max(int(sigma_px / _BLOCKS_IN_SIGMA), 1)
    fill = [(0, -side % block) for side in values.shape]

    def pool(part: NDArray[np.float32]) -> NDArray[np.float64]:
        padded = np.pad(part, fill).astype(np.float64)
        rows, columns = (side // block for side in padded.shape)
        pooled: NDArray[np.float64] = padded.reshape(rows, block, columns, block).sum(axis=(1, 3))
        return pooled

    weight, total = pool(allowed.astype(np.float32)), pool(np.where(allowed, values, 0))
    y, x = (np.indices(weight.shape).astype(np.float64).T - 0.5 * np.array(weight.shape)).T if slopes else (None, None)
    terms = [np.ones(weight.shape)] + ([y, x] if y is not None and x is not None else [])

    def near(part: NDArray[np.float64]) -> NDArray[np.float64]:
        smooth: NDArray[np.float64] = ndimage.gaussian_filter(part, sigma_px / block, mode="constant", truncate=3.0)
        return smooth

    moments = np.stack([np.stack([near(weight * one * other) for other in terms], -1) for one in terms], -2)  # (r, c, k, k)
    right = np.stack([near(total * one) for one in terms], -1)[..., None]  # (r, c, k, 1)
    moments += _RIDGE * block**2 * np.eye(len(terms))
    here = np.stack(terms, -1)[..., None, :]  # (r, c, 1, k)
    fitted = (here @ np.linalg.solve(moments, right))[..., 0, 0]
    fitted = np.pad(fitted, 1, mode="reflect", reflect_type="odd") if min(fitted.shape) > 1 else np.pad(fitted, 1, mode="edge")
    at = [(np.arange(side) + 0.5) / block + 0.5 for side in values.shape]
    plane: Image = ndimage.map_coordinates(fitted, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest").astype(np.float32)
    return plane


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

    def within(self, allowed: NDArray[np.bool_]) -> "View":
        """Return the same of a part ``(h, w)`` of its pixels."""
        return replace(self, clear=self.clear.within(allowed), field=self.field.within(allowed))


def _resize_mask(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    row, column = (np.arange(new) * old // new for new, old in zip(shape, mask.shape, strict=True))
    resized: NDArray[np.bool_] = mask[row[:, None], column[None, :]]
    return resized


def fill_empty_rings_2d(image: Image, *, diameter_px: float) -> Image:
    """Add white noise to ``(h, w)`` where its fine detail has been removed, as denoising does; else return it as it is.

    What is divided by the power of the noise must have some. In its outer rings a micrograph as it comes from the microscope has
    a tenth of that where particles are strong, a denoised one a hundred thousandth. The noise added is always the same.
    """
    shape = (image.shape[0], image.shape[1])
    rings = Rings.of(shape)
    power = rings.mean(np.abs(fft.rfft2(image - image.mean())) ** 2)
    periods = rings.frequency * diameter_px
    coarse = float(power[(periods > _COARSE_PERIODS[0]) & (periods < _COARSE_PERIODS[1])].mean())
    if power[rings.frequency > _OUTER].mean() > _EMPTIED * coarse:
        return image
    sigma = np.sqrt(_FILLED * coarse / image.size)
    noisy: Image = image + np.float32(sigma) * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return noisy


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
    flat = remove_background_2d(fill_empty_rings_2d(small, diameter_px=own_px), ~around, diameter_px=own_px)
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
