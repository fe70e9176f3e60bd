"""Picking without a template: blobs first, then what the blobs have in common.

A first pass finds blobs of the expected size with the Laplacian of a Gaussian at several scales (Lindeberg 1998, Int. J. Comput.
Vis. 30, 79; as a particle picker: Zivanov et al. 2018, eLife 7:e42166; Voss et al. 2009, J. Struct. Biol. 166, 205). The average of
the best blobs, made round, is then a template of this very specimen at this very defocus: it is correlated with the micrograph by
the fast local correlation of Roseman (2003), Ultramicroscopy 94, 225, and learned again from what it finds. So shells, discs and
elongated particles are all centred.

How many peaks are particles is decided by comparison with decoys, the peaks of the same correlation with inverted contrast: noise
makes as many of either sign (target-decoy estimate of the false discovery rate, Elias & Gygi 2007, Nat. Methods 4, 207).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, special

from icestream.algorithms.contamination import mask_contamination_2d, robust_zscore
from icestream.algorithms.fourier import Image, crop_fourier_2d, frequency_radius_2d
from icestream.algorithms.peaks import find_peaks_2d

WORKING_DIAMETER_PX = 32.0
"""The micrograph is reduced until a particle is this wide (after Topaz: Bepler et al. 2019, Nat. Methods 16, 1153)."""


@dataclass(frozen=True)
class Blobs:
    """Picked positions ``yx_px`` ``(n, 2)`` in pixels of the micrograph, scores ``(n,)`` descending, and the threshold used."""

    yx_px: NDArray[np.float64]
    score: NDArray[np.float64]
    threshold: float


def reduce_micrograph_2d(image: Image, *, diameter_px: float) -> Image:
    """Fourier-crop ``(h, w)`` so that a particle is about 32 pixels wide; an image that is small enough is returned as it is."""
    factor = diameter_px / WORKING_DIAMETER_PX
    if factor <= 1:
        return image
    height, width = (fft.next_fast_len(max(1, round(side / factor)), real=True) for side in image.shape[-2:])
    return crop_fourier_2d(image, new_shape=(height, width))


def flatten_micrograph_2d(image: Image, *, diameter_px: float) -> Image:
    """Clip outliers, remove the background and bring the local variance to one.

    Parameters
    ----------
    image
        ``(h, w)``.
    diameter_px
        Structures much larger than this are background.
    """
    clipped = np.clip(robust_zscore(image), -6.0, 6.0)
    detail = clipped - ndimage.gaussian_filter(clipped, 0.75 * diameter_px, mode="reflect")
    variance = ndimage.gaussian_filter(detail * detail, diameter_px, mode="reflect")
    floor = max(0.25 * float(np.median(variance)), 1e-12)
    flat: Image = detail / np.sqrt(np.maximum(variance, floor))
    return flat


def blob_response_2d(image: Image, *, diameters_px: tuple[float, ...]) -> Image:
    """Return the largest response to bright blobs of ``diameters_px``, in standard deviations of white noise.

    A disc of diameter ``d`` answers most to the Laplacian of a Gaussian with ``sigma = d / (2 sqrt 2)``.
    """
    pad = int(np.ceil(max(diameters_px)))
    padded = np.pad(image, pad, mode="reflect" if min(image.shape) > pad else "symmetric")
    shape = (fft.next_fast_len(padded.shape[0], real=True), fft.next_fast_len(padded.shape[1], real=True))
    spectrum = fft.rfft2(padded, s=shape)
    angular = 2 * np.pi * frequency_radius_2d(*shape).astype(np.float64)  # (h, w // 2 + 1)
    responses = []
    for diameter_px in diameters_px:
        scaled = (angular * diameter_px) ** 2 / 8.0
        kernel = scaled * np.exp(-0.5 * scaled)
        norm = np.sqrt(np.sum(fft.irfft2(kernel, s=shape) ** 2))
        responses.append(fft.irfft2(spectrum * kernel / norm, s=shape))
    height, width = image.shape
    return np.max(responses, axis=0)[pad : pad + height, pad : pad + width]


def average_radially_2d(image: Image, yx_px: NDArray[np.float64], *, radius_px: float) -> NDArray[np.float64]:
    """Average ``image`` about the points ``yx_px`` and over the angle.

    Returns
    -------
    profile
        ``(ceil(radius_px) + 2,)``, the mean at radius 0, 1, 2, … pixels.
    """
    reach = int(np.ceil(radius_px)) + 1
    offsets = np.arange(-reach, reach + 1, dtype=np.float64)
    rows = yx_px[:, 0, None, None] + offsets[None, :, None]  # (n, 2 reach + 1, 1)
    columns = yx_px[:, 1, None, None] + offsets[None, None, :]
    rows, columns = np.broadcast_arrays(rows, columns)
    patches = ndimage.map_coordinates(image, [rows, columns], order=1, mode="reflect")  # (n, 2 reach + 1, 2 reach + 1)
    radius = np.hypot(offsets[:, None], offsets[None, :])
    mean = patches.mean(axis=0)
    weight = np.clip(1.0 - np.abs(radius[None] - np.arange(reach + 1)[:, None, None]), 0.0, None)  # (reach + 1, …)
    profile: NDArray[np.float64] = (weight * mean).sum(axis=(1, 2)) / weight.sum(axis=(1, 2))
    return profile


def correlate_locally_2d(image: Image, profile: NDArray[np.float64], *, radius_px: float) -> Image:
    """Correlate ``image`` with a round template, both normalised under the template's disc (Roseman 2003, equation 6).

    Parameters
    ----------
    image
        ``(h, w)``.
    profile
        The template at radius 0, 1, 2, … pixels.
    radius_px
        Radius of the disc.

    Returns
    -------
    correlation
        ``(h, w)``, between -1 and 1.
    """
    reach = int(np.ceil(radius_px))
    pad = reach + 1
    padded = np.pad(image, pad, mode="reflect" if min(image.shape) > pad else "symmetric").astype(np.float64)
    shape = (fft.next_fast_len(padded.shape[0], real=True), fft.next_fast_len(padded.shape[1], real=True))
    offset_y, offset_x = (np.fft.fftfreq(n, 1.0 / n) for n in shape)
    radius = np.hypot(offset_y[:, None], offset_x[None, :])  # (h, w), the origin at [0, 0]
    disc = np.clip(radius_px + 0.5 - radius, 0.0, 1.0)
    area = disc.sum()
    template = np.interp(radius, np.arange(len(profile)), profile)
    template = (template - (template * disc).sum() / area) * disc
    template /= np.sqrt((template**2).sum()) + 1e-30
    disc_spectrum, template_spectrum = fft.rfft2(disc), fft.rfft2(template)
    spectrum, square = fft.rfft2(padded, s=shape), fft.rfft2(padded**2, s=shape)
    covariance = fft.irfft2(spectrum * template_spectrum, s=shape)  # the template is even: correlation is convolution
    total = fft.irfft2(spectrum * disc_spectrum, s=shape)
    variance = fft.irfft2(square * disc_spectrum, s=shape) - total**2 / area
    inner = (slice(pad, pad + image.shape[0]), slice(pad, pad + image.shape[1]))
    floor = max(0.1 * float(np.median(variance[inner])), 1e-12)
    correlation: Image = covariance[inner] / np.sqrt(np.maximum(variance[inner], floor))
    return correlation


def choose_threshold(score: NDArray[np.float64], decoy: NDArray[np.float64], *, false_discovery_rate: float) -> float:
    """Return the lowest score above which peaks are more than noise; infinite where none is.

    Two rules, the milder one holds. With ``T(t)`` and ``D(t)`` the numbers of peaks and of decoys of at least ``t``: (1) many
    particles: ``(1 + D(t)) / T(t)`` is at most ``false_discovery_rate``; (2) few particles: ``t`` is above every decoy and above
    the height that noise reaches once in twenty micrographs, by a normal tail fitted to the upper half of the decoys.

    Parameters
    ----------
    score, decoy
        ``(n,)`` and ``(m,)``: heights of the peaks of either contrast.
    """
    ranked = np.sort(score)[::-1]
    decoys_above = len(decoy) - np.searchsorted(np.sort(decoy), ranked, side="left")
    passing = np.flatnonzero(1 + decoys_above <= false_discovery_rate * np.arange(1, len(ranked) + 1))
    by_rate = float(ranked[passing[-1]]) if len(passing) else np.inf
    if len(decoy) < 10:
        return by_rate
    median, upper = np.percentile(decoy, [50.0, 84.13])
    by_tail = max(float(median + (upper - median) * special.ndtri(1 - 0.05 / len(decoy))), float(np.max(decoy)))
    return min(by_rate, by_tail)


def pick_particles_2d(
    image: Image,
    *,
    diameter_px: tuple[float, float],
    min_distance_px: float,
    threshold: float | None = None,
    false_discovery_rate: float = 0.05,
    n_rounds: int = 3,
) -> Blobs:
    """Find bright particles.

    Parameters
    ----------
    image
        ``(h, w)``, protein bright (negate it where it is dark).
    diameter_px
        Smallest and largest particle diameter.
    min_distance_px
        No two picks are closer.
    threshold
        Lowest correlation with the learned template; chosen from the data when unset.
    false_discovery_rate
        Accepted fraction of false picks where the threshold is chosen.
    n_rounds
        How often the template is learned again.
    """
    middle_px = float(np.sqrt(diameter_px[0] * diameter_px[1]))
    small = reduce_micrograph_2d(image, diameter_px=middle_px)
    scale = np.array(image.shape) / np.array(small.shape)  # (2,)
    factor = float(scale.mean())
    allowed = ~mask_contamination_2d(small, diameter_px=diameter_px[1] / factor)
    flat = flatten_micrograph_2d(small, diameter_px=diameter_px[1] / factor)
    distance = min_distance_px / factor
    scales = tuple(np.geomspace(0.8 * diameter_px[0], diameter_px[1], 4) / factor)
    response = blob_response_2d(flat, diameters_px=scales)
    decoy_response = blob_response_2d(-flat, diameters_px=scales)
    radius = 0.65 * diameter_px[1] / factor
    for _ in range(n_rounds):
        yx, height = find_peaks_2d(response, min_distance_px=distance, allowed=allowed)
        _, decoy = find_peaks_2d(decoy_response, min_distance_px=distance, allowed=allowed)
        chosen = choose_exemplars(flat, yx, height, decoy, diameter_px=middle_px / factor)
        if not len(chosen):
            break
        profile = average_radially_2d(flat, chosen, radius_px=radius)
        response = correlate_locally_2d(flat, profile, radius_px=radius)
        decoy_response = -response
    yx, height = find_peaks_2d(response, min_distance_px=distance, allowed=allowed)
    _, decoy = find_peaks_2d(decoy_response, min_distance_px=distance, allowed=allowed)
    level = choose_threshold(height, decoy, false_discovery_rate=false_discovery_rate) if threshold is None else threshold
    kept = height >= level
    return Blobs((yx[kept] + 0.5) * scale - 0.5, height[kept], level)


def choose_exemplars(flat, yx, height, decoy, *, diameter_px):
    keep = height > np.median(decoy) if len(decoy) else np.ones(len(height), bool)
    yx, height = yx[keep], height[keep]
    n = len(yx)
    return yx[: max(10, int(0.6 * n))][:200]
