"""Picking without a template: blobs first, then what the blobs have in common.

A first pass finds blobs of the expected size with the Laplacian of a Gaussian at several scales (Lindeberg 1998, Int. J.
Comput. Vis. 30, 79; as a particle picker: Zivanov et al. 2018, eLife 7:e42166; Voss et al. 2009, J. Struct. Biol. 166, 205).
The average of the best blobs, made round, is then a template of this very specimen at this very defocus: it is correlated
with the micrograph by the fast local correlation of Roseman (2003), Ultramicroscopy 94, 225, and learned again from what it
finds. In the end the picks are centred with a template of what is centred already (`centre_particles_2d`), so that shells, discs
and elongated particles all have their picks in the middle.

How many peaks are particles is decided by comparison with decoys, the peaks of inverted contrast (see `decoys`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.fourier import Image, crop_fourier_2d, frequency_radius_2d
from icestream.algorithms.micrograph.contamination import mask_contamination_2d, robust_zscore
from icestream.algorithms.particles.decoys import choose_threshold, compete
from icestream.algorithms.particles.matching import average_radially_2d, correlate_locally_2d
from icestream.algorithms.particles.peaks import climb_2d, find_peaks_2d, suppress_neighbours

WORKING_DIAMETER_PX = 32.0
"""The micrograph is reduced until a particle is this wide (after Topaz: Bepler et al. 2019, Nat. Methods 16, 1153)."""

_SOFTENED_TO_LEARN = 0.13  # diameters, the standard deviation of a Gaussian
_SOFTENED_AT_LAST = 0.08
_FURTHEST = 0.25  # diameters
_MOST_EXEMPLARS = 200


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


def remove_background_2d(image: Image, *, diameter_px: float) -> Image:
    """Subtract the local mean of ``(h, w)``: what is much larger than ``diameter_px`` is background."""
    detail: Image = image - ndimage.gaussian_filter(image, 0.75 * diameter_px, mode="reflect")
    return detail


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
    detail = remove_background_2d(clipped, diameter_px=diameter_px)
    variance = ndimage.gaussian_filter(detail * detail, diameter_px, mode="reflect")
    floor = max(0.25 * float(np.median(variance)), 1e-12)
    flat: Image = detail / np.sqrt(np.maximum(variance, floor))
    return flat


def blob_response_2d(image: Image, *, diameters_px: tuple[float, ...]) -> Image:
    """Return the largest response to bright blobs of ``diameters_px``, in standard deviations of white noise.

    The Laplacian of a Gaussian with ``sigma = d / (2 sqrt 2)`` changes its sign at the edge of a disc of diameter ``d``.
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
    strongest: Image = np.max(responses, axis=0)
    return strongest[pad : pad + height, pad : pad + width]


def centre_particles_2d(
    flat: Image, response: Image, yx_px: NDArray[np.float64], *, diameter_px: float, radius_px: float, n_rounds: int
) -> NDArray[np.float64]:
    """Move peaks of a response to the middle of their particles: ``(n, 2)``.

    The peaks are on the heaviest part of a particle that is not round, and a template learned from them drifts further there from
    round to round: what is fine in it, such as the fringes of the defocus, matches that part. So the response is blurred,
    particles are moved to its tops, and a template of what is then centred gives the next response.

    Parameters
    ----------
    flat, response
        ``(h, w)``: the micrograph without background, and where it looks like a particle.
    yx_px
        ``(n, 2)``, the best first.
    diameter_px
        Of a particle; in each round it moves by at most a quarter of it.
    radius_px
        Radius of the template.
    n_rounds
        How often the template is learned.
    """
    furthest = _FURTHEST * diameter_px
    for _ in range(n_rounds if len(yx_px) else 0):
        soft = ndimage.gaussian_filter(response, _SOFTENED_TO_LEARN * diameter_px, mode="reflect")
        yx_px = climb_2d(soft, yx_px, reach_px=furthest)
        profile = average_radially_2d(flat, yx_px[:_MOST_EXEMPLARS], radius_px=radius_px)
        response = correlate_locally_2d(flat, profile, radius_px=radius_px)
    soft = ndimage.gaussian_filter(response, _SOFTENED_AT_LAST * diameter_px, mode="reflect")
    return climb_2d(soft, yx_px, reach_px=furthest)


@dataclass(frozen=True)
class _Peaks:
    """A response, all its peaks, and the heights of those peaks and decoys that won against the other contrast."""

    response: Image
    yx_px: NDArray[np.float64]
    score: NDArray[np.float64]
    winning: NDArray[np.float64]
    decoy: NDArray[np.float64]

    def threshold(self, false_discovery_rate: float) -> float:
        """Return the level above the noise, at least 0.4 of what the five best reach: side lobes are no noise either."""
        floor = 0.4 * float(np.median(self.score[:5])) if len(self.score) else 0.0
        return max(choose_threshold(self.winning, self.decoy, false_discovery_rate=false_discovery_rate), floor)

    def evidence(self, false_discovery_rate: float) -> float:
        """Return by how much the accepted peaks rise above the noise, all together."""
        accepted = self.score[self.score >= self.threshold(false_discovery_rate)]
        return float(np.sum(accepted - (np.median(self.decoy) if len(self.decoy) else 0.0)))


def _find_both_contrasts(
    response: Image, inverted: Image, *, distance_px: float, reach_px: float, allowed: NDArray[np.bool_]
) -> _Peaks:
    """Find the peaks of both contrasts; a bright halo within a particle's reach of what is masked is no decoy but a side lobe."""
    yx_px, score = find_peaks_2d(response, min_distance_px=distance_px, allowed=allowed)
    clear = allowed if allowed.all() else ndimage.distance_transform_edt(allowed) > reach_px
    decoy_yx_px, decoy = find_peaks_2d(inverted, min_distance_px=distance_px, allowed=clear)
    winning = score[compete(yx_px, score, decoy_yx_px, decoy, reach_px=reach_px)]
    decoy = decoy[compete(decoy_yx_px, decoy, yx_px, score, reach_px=reach_px)]
    return _Peaks(response, yx_px, score, winning, decoy)


def _choose_exemplars(peaks: _Peaks, *, trusting: bool, fewest: int = 5, most: int = _MOST_EXEMPLARS) -> NDArray[np.float64]:
    """Return the positions from which the template is learned: ``(n, 2)``, empty where there is no peak.

    They are the peaks that are surely no noise; where fewer than ``fewest`` are sure, or they are not to be trusted, the better
    part of the plausible ones.
    """
    sure = int(np.count_nonzero(peaks.score >= peaks.threshold(0.2)))
    if trusting and sure >= fewest:
        return peaks.yx_px[: min(sure, most)]
    plausible = int(np.count_nonzero(peaks.score > np.median(peaks.decoy))) if len(peaks.decoy) else len(peaks.score)
    return peaks.yx_px[: min(max(int(0.6 * plausible), 10), most)]


def reject_outliers_2d(image: Image, yx_px: NDArray[np.float64], *, radius_px: float) -> NDArray[np.bool_]:
    """Tell which picks look like the better half of them: ``(n,)``, false for gold beads and small ice crystals.

    The mean under the disc (in standard deviations within a typical disc) and the logarithm of the variance may be 1 off the
    median, or five robust standard deviations where these are more; fewer than twenty picks are all kept.

    Parameters
    ----------
    image
        ``(h, w)``, the background removed.
    yx_px
        ``(n, 2)``, the best first.
    radius_px
        Radius of the disc.
    """
    if len(yx_px) < 20:
        return np.ones(len(yx_px), dtype=bool)
    reach = np.arange(-np.ceil(radius_px), np.ceil(radius_px) + 1)
    offset_y, offset_x = np.meshgrid(reach, reach, indexing="ij")
    inside = np.hypot(offset_y, offset_x) <= radius_px
    rows = yx_px[:, :1] + offset_y[inside]  # (n, m)
    columns = yx_px[:, 1:] + offset_x[inside]
    values = ndimage.map_coordinates(image, [rows, columns], order=0, mode="nearest")  # (n, m)
    variance = values.var(axis=1)
    typical = float(np.median(variance[: (len(yx_px) + 1) // 2])) + 1e-30
    features = np.stack([values.mean(axis=1) / np.sqrt(typical), np.log(variance / typical + 1e-12)])  # (2, n)
    better = features[:, : (len(yx_px) + 1) // 2]
    middle = np.median(better, axis=1, keepdims=True)
    spread = 1.4826 * np.median(np.abs(better - middle), axis=1, keepdims=True)
    alike: NDArray[np.bool_] = (np.abs(features - middle) < np.maximum(5.0 * spread, 1.0)).all(axis=0)
    return alike


def pick_particles_2d(
    image: Image,
    *,
    diameter_px: tuple[float, float],
    min_distance_px: float,
    threshold: float | None = None,
    false_discovery_rate: float = 0.05,
    n_rounds: int = 3,
    centre: bool = True,
) -> Blobs:
    """Find bright particles of a roughly known size.

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
        How often the template is learned again; with 0 the blob response itself is the score.
    centre
        Move the picks to the middle of their particles.
    """
    small = reduce_micrograph_2d(image, diameter_px=float(np.sqrt(diameter_px[0] * diameter_px[1])))
    scale = np.array(image.shape) / np.array(small.shape)  # (2,)
    smallest, largest, distance = np.array([*diameter_px, min_distance_px]) / float(scale.mean())
    middle = float(np.sqrt(smallest * largest))
    find = partial(
        _find_both_contrasts, distance_px=distance, reach_px=distance, allowed=~mask_contamination_2d(small, diameter_px=largest)
    )
    flat = flatten_micrograph_2d(small, diameter_px=largest)
    scales = tuple(np.geomspace(0.8 * smallest, largest, 4))
    blobs = find(blob_response_2d(flat, diameters_px=scales), blob_response_2d(-flat, diameters_px=scales))
    learn = partial(_learn_and_find, flat, blobs, find, radius_px=0.65 * largest, n_rounds=n_rounds)
    peaks = max((learn(trusting=trusting) for trusting in (False, True)), key=lambda found: found.evidence(false_discovery_rate))
    level = peaks.threshold(false_discovery_rate) if threshold is None else threshold
    yx_px, score = peaks.yx_px[peaks.score >= level], peaks.score[peaks.score >= level]
    if centre:
        yx_px = centre_particles_2d(flat, peaks.response, yx_px, diameter_px=middle, radius_px=0.65 * largest, n_rounds=n_rounds)
        apart = suppress_neighbours(yx_px, min_distance_px=distance)
        yx_px, score = yx_px[apart], score[apart]
    alike = reject_outliers_2d(remove_background_2d(small, diameter_px=largest), yx_px, radius_px=0.5 * smallest)
    return Blobs(yx_px[alike] * scale, score[alike], level)  # Fourier cropping leaves pixel 0 where it is


def _learn_and_find(
    flat: Image, peaks: _Peaks, find: Callable[[Image, Image], _Peaks], *, trusting: bool, radius_px: float, n_rounds: int
) -> _Peaks:
    """Learn a round template from peaks, find peaks with it, and so on."""
    for _ in range(n_rounds):
        exemplars = _choose_exemplars(peaks, trusting=trusting)
        if not len(exemplars):
            break
        profile = average_radially_2d(flat, exemplars, radius_px=radius_px)
        response = correlate_locally_2d(flat, profile, radius_px=radius_px)
        peaks = find(response, -response)
    return peaks
