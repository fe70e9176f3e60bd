"""Picking with templates: a matched filter that knows the CTF of the exposure and the spectrum of its noise.

The score of a template ``T``, turned by ``g``, at a place is ``Re <Y, T_g> / |T|`` with ``Y = CTF X / P``: ``X`` is the
micrograph and ``P`` its power spectrum, averaged over rings. That is the correlation of the whitened micrograph with the
whitened template as the microscope images it, in standard deviations of noise (Turin 1960, IRE Trans. Inf. Theory 6, 311; in
cryo-EM: Sigworth 2004, J. Struct. Biol. 145, 57). It is normalised locally where the micrograph varies more than usual, in the
spirit of Roseman (2003), Ultramicroscopy 94, 225. As the CTF is with the image, the turned templates are the same for all
exposures and are compressed together: the micrograph is correlated with a few dozen eigenimages, and scores are linear
combinations of the results.

How many matches are particles is decided by decoys: what the same templates find in noise of the same spectrum. The inverted
micrograph is no null here: what the CTF makes of a particle has negative rims, which match inverted templates better than any
noise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, linalg, ndimage
from scipy.spatial import cKDTree

from icestream.algorithms.fourier import Image, frequency_radius_2d
from icestream.algorithms.micrograph.contamination import mask_contamination_2d
from icestream.algorithms.particles.noise import (
    Transfer,
    draw_noise_2d,
    flatten_2d,
    lowest_score,
    pad_2d,
    probability_by_decoys,
    reduce_2d,
    ring_power_2d,
)
from icestream.algorithms.particles.peaks import find_peaks_2d, suppress_neighbours
from icestream.algorithms.particles.templates import rotate_templates_2d

N_ANGLES = 36
_LOST = 0.01  # part of the templates' energy that compression may lose
_MOST_EIGENIMAGES = 160
_MOST_LOBES = 6  # templates whose side lobes are looked at
_MOST_PIXELS = 1 << 13  # whose scores are computed together
_STEP = np.array([-1, 0, 1])
_LONGEST = 2.0  # diameters; longer waves are background


@dataclass(frozen=True)
class Eigenimages:
    """Turned templates as combinations of a few images.

    Attributes
    ----------
    images
        ``(k, b, b)``.
    weights
        ``(k, n * n_angles)``: template ``j`` at angle ``a`` is ``sum_k weights[k, j * n_angles + a] images[k]``.
    """

    images: NDArray[np.float32]
    weights: NDArray[np.float32]


def compress_templates(templates: NDArray[np.float32], *, n_angles: int = N_ANGLES, lost: float = _LOST) -> Eigenimages:
    """Turn templates ``(n, b, b)`` and find the fewest images that make them up but for the part ``lost`` of their energy."""
    turned = rotate_templates_2d(templates, n_angles=n_angles)
    flat = turned.reshape(len(templates) * n_angles, -1).astype(np.float64)  # (n n_angles, b²)
    covariance = flat.T @ flat  # (b², b²)
    size = len(covariance)
    values, vectors = linalg.eigh(covariance, subset_by_index=(max(size - _MOST_EIGENIMAGES, 0), size - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = min(1 + int(np.searchsorted(np.cumsum(values) / np.trace(covariance), 1 - lost)), len(values))
    box_px = templates.shape[-1]
    images = vectors[:, :kept].T.reshape(kept, box_px, box_px)  # orthonormal
    weights = (flat @ vectors[:, :kept]).T  # (k, n n_angles)
    return Eigenimages(images.astype(np.float32), weights.astype(np.float32))


@dataclass(frozen=True)
class TemplatePicks:
    """Picks, the best first.

    Attributes
    ----------
    yx_px
        ``(n, 2)``, pixels of the micrograph.
    score
        ``(n,)``, standard deviations of noise.
    probability
        ``(n,)``, that the pick is more than noise.
    threshold
        The score that picks reach at least; infinite where there is none.
    """

    yx_px: NDArray[np.float64]
    score: NDArray[np.float64]
    probability: NDArray[np.float64]
    threshold: float


def pick_with_templates_2d(
    image: Image,
    templates: NDArray[np.float32],
    eigenimages: Eigenimages,
    *,
    pixel_size_ang: float,
    template_pixel_ang: float,
    diameter_ang: float,
    min_distance_ang: float,
    transfer: Transfer,
    seed: int,
    false_discovery_rate: float = 0.05,
    threshold: float | None = None,
) -> TemplatePicks:
    """Find particles that look like templates.

    Parameters
    ----------
    image
        ``(h, w)``.
    templates, eigenimages
        ``(n, b, b)``, bright, without CTF, and what `compress_templates` made of them.
    pixel_size_ang, template_pixel_ang
        Of the image and of the templates; the image is reduced to the latter.
    diameter_ang
        Of the particle.
    min_distance_ang
        No two picks are closer.
    transfer
        The contrast transfer.
    seed
        Of the random phases of the decoys.
    false_discovery_rate
        Accepted fraction of false picks, where ``threshold`` is unset.
    threshold
        Lowest score, in standard deviations of noise.
    """
    small, scale = reduce_2d(image, factor=template_pixel_ang / pixel_size_ang)
    pixel_ang = pixel_size_ang * float(scale.mean())
    diameter_px = diameter_ang / pixel_ang
    masked = mask_contamination_2d(small, diameter_px=diameter_px)
    flat = flatten_2d(small, diameter_px=diameter_px, masked=masked)
    search = Search(templates, eigenimages, transfer, pixel_ang, diameter_px, min_distance_ang / pixel_ang)
    found = search.find(flat, allowed=~masked)[0]
    found = drop_side_lobes(found, search.side_lobes(flat))
    half = draw_noise_2d(flat, seed=seed)[: flat.shape[0] // 2]  # both contrasts of half the area are as much as one of all
    decoys = np.concatenate([both.score for both in search.find(half, allowed=~masked[: half.shape[0]], contrasts=(1, -1))])
    level = lowest_score(found.score, decoys, false_discovery_rate=false_discovery_rate) if threshold is None else threshold
    probability = probability_by_decoys(found.score, decoys)
    kept = found.score >= level
    return TemplatePicks(found.yx_px[kept] * scale, found.score[kept], probability[kept], level)


@dataclass(frozen=True)
class Matches:
    """Places that look like a template: ``yx_px`` ``(n, 2)``, and their scores ``(n,)``, descending.

    ``strength`` ``(n,)`` is the score before it was normalised locally.
    """

    yx_px: NDArray[np.float64]
    score: NDArray[np.float64]
    strength: NDArray[np.float64]


@dataclass(frozen=True)
class Search:
    """Templates, and how they are looked for in micrographs of one pixel size.

    Attributes
    ----------
    templates, eigenimages
        ``(n, b, b)``, bright, without CTF, and what `compress_templates` made of them.
    transfer
        The contrast transfer.
    pixel_size_ang
        Of the micrographs.
    diameter_px, min_distance_px
        Of the particle; and how close no two matches of one contrast are.
    """

    templates: NDArray[np.float32]
    eigenimages: Eigenimages
    transfer: Transfer
    pixel_size_ang: float
    diameter_px: float
    min_distance_px: float

    def find(self, flat: NDArray[np.float32], *, allowed: NDArray[np.bool_], contrasts: tuple[int, ...] = (1,)) -> list[Matches]:
        """Find where a flat micrograph ``(h, w)`` looks like a template in any turn (contrast 1), or an inverted one (-1).

        Every other pixel is scored with every other turn; about the better half of the peaks all are. That is the same for
        particles and decoys.
        """
        responses, norms, uneven = self._respond(flat)
        turns = self.eigenimages.weights.shape[1] // len(norms)
        weights = (self.eigenimages.weights / np.repeat(norms, turns)).astype(np.float32)
        coarse = np.ascontiguousarray(responses[:, ::2, ::2]).reshape(len(responses), -1)
        matches = []
        for contrast in contrasts:
            response = _best_score(coarse, contrast * weights[:, ::2]).reshape(responses[0, ::2, ::2].shape)
            near, height = find_peaks_2d(response, min_distance_px=0.25 * self.min_distance_px, allowed=allowed[::2, ::2])
            better = near[: (len(height) + 1) // 2]
            matches.append(_refine(responses, contrast * weights, better, uneven, min_distance_px=self.min_distance_px))
        return matches

    def side_lobes(self, flat: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return how high the score beside a particle is without noise, as a part of the score in its middle, at 0, 1, … pixels.

        It is the highest in any direction, averaged over a few templates, out to two diameters.
        """
        reach = int(np.ceil(2 * self.diameter_px))
        side = fft.next_fast_len(2 * reach + self.templates.shape[-1], real=True)
        power = _ring_profile(flat)
        frequency = frequency_radius_2d(side, side)
        at = np.interp(frequency, np.linspace(0, 0.5, len(power)), power).astype(np.float32)
        lens = self.transfer(side, side, self.pixel_size_ang) * _pass_short_waves(frequency, diameter_px=self.diameter_px)
        weight = lens * lens / at
        norms = _template_norms(self.templates, weight, width=side)
        turns = self.eigenimages.weights.shape[1] // len(norms)
        weights = (self.eigenimages.weights / np.repeat(norms, turns)).astype(np.float32)
        transforms = [np.conj(_transform(image, (side, side))) for image in self.eigenimages.images]
        offset = np.minimum(np.arange(side), side - np.arange(side))
        radius = np.minimum(np.hypot(offset[:, None], offset[None, :]).round().astype(np.int64), reach + 1).ravel()
        lobes = []
        for template in self.templates[:: max(len(self.templates) // _MOST_LOBES, 1)]:
            imaged = _transform(template, (side, side)) * weight
            responses = np.stack([fft.irfft2(imaged * kernel, s=(side, side)).ravel() for kernel in transforms])
            score = _best_score(responses, weights[:, ::2])
            highest = np.zeros(reach + 2)
            np.maximum.at(highest, radius, score)
            lobes.append(highest[:-1] / highest[0])
        mean: NDArray[np.float64] = np.mean(lobes, axis=0)
        return mean

    def _respond(self, flat: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]:
        """Correlate with every eigenimage, normalised locally: ``(k, h, w)``.

        Also return the standard deviation that noise gives to each template, ``(n,)``, and by what was divided, ``(h, w)``.
        """
        pad = int(np.ceil(self.diameter_px))
        padded = pad_2d(flat, pad)
        height, width = padded.shape
        spectrum = fft.rfft2(padded)
        power = ring_power_2d(spectrum, width=width)
        passed = _pass_short_waves(frequency_radius_2d(height, width), diameter_px=self.diameter_px)
        lens = self.transfer(height, width, self.pixel_size_ang) * passed
        inner = (slice(pad, pad + flat.shape[0]), slice(pad, pad + flat.shape[1]))
        white = fft.irfft2(spectrum * (passed / np.sqrt(power)), s=padded.shape)
        uneven = _unevenness_2d(white, diameter_px=self.diameter_px)[inner]
        filtered = spectrum * (lens / power)
        responses = np.empty((len(self.eigenimages.images), *flat.shape), dtype=np.float32)
        for image, out in zip(self.eigenimages.images, responses, strict=True):
            out[:] = fft.irfft2(filtered * np.conj(_transform(image, padded.shape)), s=padded.shape)[inner] / uneven
        return responses, _template_norms(self.templates, lens * lens / power, width=width), uneven


def drop_side_lobes(found: Matches, side_lobes: NDArray[np.float64]) -> Matches:
    """Leave out matches that are no higher than what better ones make beside them, and noise of one standard deviation."""
    kept = np.ones(len(found.score), dtype=bool)
    lobes = np.zeros(len(kept))
    near_each = cKDTree(found.yx_px).query_ball_point(found.yx_px, len(side_lobes) - 1) if len(kept) else []
    for index, neighbours in enumerate(near_each):
        kept[index] = found.strength[index] >= lobes[index] + 1.0
        if kept[index]:
            near = np.asarray(neighbours)
            near = near[near > index]
            distance = np.hypot(*(found.yx_px[near] - found.yx_px[index]).T)
            lobes[near] += found.strength[index] * np.interp(distance, np.arange(len(side_lobes)), side_lobes)
    return Matches(found.yx_px[kept], found.score[kept], found.strength[kept])


def _pass_short_waves(frequency: NDArray[np.float32], *, diameter_px: float) -> NDArray[np.float32]:
    """Return a filter, the shape of ``frequency``, that stops what is much larger than a particle."""
    passed: NDArray[np.float32] = np.clip(frequency * (_LONGEST * diameter_px) - 0.5, 0.0, 1.0).astype(np.float32)
    return passed


def _ring_profile(flat: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the power of ``(h, w)`` from frequency 0 to Nyquist, averaged over rings: ``(n,)``."""
    power = ring_power_2d(fft.rfft2(flat), width=flat.shape[1])
    n_rings = min(flat.shape) // 2
    return power[: power.shape[0] // 2, 0].astype(np.float64)[:n_rings]


def _refine(
    responses: NDArray[np.float32],
    weights: NDArray[np.float32],
    coarse_yx_px: NDArray[np.float64],
    uneven: NDArray[np.float32],
    *,
    min_distance_px: float,
) -> Matches:
    """Score the pixels about places on the grid of every other pixel, and keep the best that are not too close."""
    size = np.array(responses.shape[1:])
    middle = np.clip(np.round(2 * coarse_yx_px), 1, size - 2).astype(np.int64)  # (n, 2)
    rows = middle[:, 0, None, None] + _STEP[None, :, None]  # (n, 3, 1)
    columns = middle[:, 1, None, None] + _STEP[None, None, :]
    around = responses[:, rows, columns].reshape(len(responses), -1)  # (k, n 9)
    score = _best_score(around, weights).reshape(-1, 3, 3)
    at = np.stack(np.unravel_index(score.reshape(-1, 9).argmax(axis=1), (3, 3)), axis=1)  # (n, 2)
    each = np.arange(len(at))
    through = np.stack([score[each, :, at[:, 1]], score[each, at[:, 0], :]], axis=1).astype(np.float64)  # (n, 2, 3)
    bend = through[..., 0] - 2 * through[..., 1] + through[..., 2]
    top = np.where((at == 1) & (bend < 0), 0.5 * (through[..., 0] - through[..., 2]) / np.where(bend < 0, bend, -1.0), 0.0)
    yx_px = middle + at - 1 + np.clip(top, -0.5, 0.5)
    height = score.reshape(-1, 9).max(axis=1).astype(np.float64)
    order = np.argsort(-height, kind="stable")
    kept = order[suppress_neighbours(yx_px[order], min_distance_px=min_distance_px)]
    place = np.clip(np.round(yx_px[kept]), 0, size - 1).astype(np.int64)
    return Matches(yx_px[kept], height[kept], height[kept] * uneven[place[:, 0], place[:, 1]])


def _transform(image: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Return the transform of ``(b, b)`` in a field of ``shape``, its centre at the origin."""
    box_px = image.shape[-1]
    field = np.zeros(shape, dtype=np.float32)
    field[:box_px, :box_px] = image
    spectrum: NDArray[np.complex64] = fft.rfft2(np.roll(field, (-(box_px // 2), -(box_px // 2)), axis=(0, 1)))
    return spectrum


def _template_norms(templates: NDArray[np.float32], weight: NDArray[np.floating], *, width: int) -> NDArray[np.float64]:
    """Return the standard deviation that noise gives to the response of each template ``(n, b, b)``: ``(n,)``."""
    height = weight.shape[0]
    double = np.full(weight.shape[1], 2.0)
    double[0] = 1.0
    if width % 2 == 0:
        double[-1] = 1.0
    energy = [float(((np.abs(_transform(t, (height, width))) ** 2 * weight).sum(axis=0) * double).sum()) for t in templates]
    norms: NDArray[np.float64] = np.sqrt(np.maximum(energy, 1e-30)) / (height * width)
    return norms


def _unevenness_2d(white: NDArray[np.float32], *, diameter_px: float) -> NDArray[np.float32]:
    """Return by how much a white image varies more than usual about each place, at least 1: ``(h, w)``."""
    variance = ndimage.gaussian_filter(white * white, 0.5 * diameter_px, mode="reflect")
    relative = variance / max(float(np.median(variance)), 1e-30)
    uneven: NDArray[np.float32] = np.sqrt(np.maximum(relative, 1.0)).astype(np.float32)
    return uneven


def _best_score(responses: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest combination of ``responses`` ``(k, m)`` by ``weights`` ``(k, p)``: ``(m,)``."""
    best = np.empty(responses.shape[1], dtype=np.float32)
    for start in range(0, len(best), _MOST_PIXELS):
        rows = slice(start, start + _MOST_PIXELS)
        (weights.T @ responses[:, rows]).max(axis=0, out=best[rows])
    return best
