"""What a micrograph looks like in a few numbers that do not depend on how its grey values were stretched.

Each is measured on the image reduced to at most 512 pixels a side (`micrograph_objects`), but for the Bragg spots, which need
the full resolution and the pixel size. `FEATURES` says what each is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.fourier import Image
from icestream.algorithms.micrograph.bragg import BraggSpots, find_bragg_spots_2d
from icestream.algorithms.micrograph.objects import (
    Film,
    clip_outliers_2d,
    find_dark_objects_2d,
    find_film_2d,
    flatten_2d,
    reduce_image_2d,
)
from icestream.algorithms.micrograph.particles import find_alike_2d, find_candidates_2d
from icestream.algorithms.micrograph.texture import Texture, measure_noise_power_2d, measure_texture_2d

_OBJECTS_PER_SIDE = 32
_LEAST_CLEAR = 0.1

FEATURES: dict[str, str] = {
    "signal_to_noise": "strongest octave of the spectrum over the weakest, in the clear part; 1 is shot noise alone",
    "mottle": "power of 32 to 64 reduced pixels over the strongest octave finer than 16, between particles; the CTF hides it",
    "bragg_share": "share of the tiles that have a spot of ice at 3.35 to 4.0 Å; unset where pixels are too coarse",
    "anisotropy": "how one-sided the spectrum is, both from 8 and from 4 to 64 reduced pixels: 0 for rings, 1 for a line",
    "film_share": "share of the image that is film beside a hole",
    "dark_share": "share of the image that lies under dark lumps with an edge, but for particles",
    "skewness": "least skewness of the grey values over five scales, in the clear part and dark objects that may be particles; "
    "bare ice has 0, particles less",
    "usable_share": "share of the image that is neither film, nor its edge, nor under a lump",
    "particle_share": "share of the image under dark objects that are alike, many and no larger than particles",
    "particle_evidence": "minus skewness times (signal to noise - 1): bare ice is symmetric and weak, particles neither",
    "usable_signal": "signal to noise times usable share",
}
"""The meaning of each feature; none has a unit, all are ratios."""


@dataclass(frozen=True)
class MicrographFeatures:
    """The numbers of `FEATURES`."""

    signal_to_noise: float
    mottle: float
    bragg_share: float | None
    bragg_spacing_ang: float | None
    anisotropy: float
    film_share: float
    dark_share: float
    skewness: float
    usable_share: float
    particle_share: float = 0.0

    @property
    def particle_evidence(self) -> float:
        """How strong and dark-tailed the signal is: minus the skewness times the signal to noise less 1; at least 0."""
        return max(-self.skewness * (self.signal_to_noise - 1), 0.0)

    @property
    def usable_signal(self) -> float:
        """Signal to noise times the share of the image that can be used."""
        return self.signal_to_noise * self.usable_share


@dataclass(frozen=True)
class MicrographMaps:
    """The reduced image and what was found on it, ``(h, w)`` each; ``bragg`` is true where a tile has a spot."""

    image: NDArray[np.float64]
    film: NDArray[np.bool_]
    dark: NDArray[np.bool_]
    particles: NDArray[np.bool_]
    bragg: NDArray[np.bool_]


def measure_features_2d(
    image: Image, *, pixel_size_ang: float | None = None, dose_e_per_ang2: float | None = None
) -> tuple[MicrographFeatures, MicrographMaps]:
    """Measure the features of a micrograph.

    Parameters
    ----------
    image
        ``(h, w)``, at least 64 pixels a side; values that are not finite are taken as the median.
    pixel_size_ang
        Of the image; unset, Bragg spots cannot be looked for.
    dose_e_per_ang2
        Of the whole exposure. With the pixel size it tells from the noise how many electrons a grey value is, and dark lumps
        must then take a part of the beam.

    Raises
    ------
    ValueError
        The image is too small or too narrow, shows nothing, or has hardly any finite value.
    """
    clipped = clip_outliers_2d(image)
    reduced, box_px = reduce_image_2d(clipped)
    film = find_film_2d(reduced)
    flat = flatten_2d(reduced, film)
    edge, clear = _clear_of_film(film, reduced.shape)
    beam = None
    if pixel_size_ang is not None and dose_e_per_ang2 is not None:
        noise = measure_noise_power_2d(flat, clear)
        beam = float(np.sqrt(noise * dose_e_per_ang2 * (pixel_size_ang * box_px) ** 2))
    object_px = max(min(reduced.shape) / _OBJECTS_PER_SIDE, 6.0)
    unusual, hazy = find_dark_objects_2d(flat, object_px=object_px)
    lumps, clouds = (unusual, hazy) if beam is None else find_dark_objects_2d(flat, object_px=object_px, beam_level=beam)
    reduced_ang = None if pixel_size_ang is None else pixel_size_ang * box_px
    alike = [find_alike_2d(found & ~edge, flat, pixel_size_ang=reduced_ang) for found in (unusual, lumps)]
    particles = alike[0] | alike[1]
    dark = lumps & ~edge & ~particles
    texture = measure_texture_2d(flat, clear & ~dark & ~clouds)
    maybe = find_candidates_2d(dark, pixel_size_ang=reduced_ang)
    skewness = measure_texture_2d(flat, clear & ~(dark & ~maybe) & ~clouds).skewness if maybe.any() else texture.skewness
    between = measure_texture_2d(flat, clear & ~lumps & ~clouds & ~unusual) if particles.any() else texture
    spots = None if pixel_size_ang is None else find_bragg_spots_2d(clipped, pixel_size_ang=pixel_size_ang)
    film_mask = np.zeros(reduced.shape, bool) if film is None else film.mask
    maps = MicrographMaps(reduced, film_mask, dark, particles, _spread_tiles(spots, reduced.shape))
    return _collect(texture, spots, maps=maps, edge=edge, mottle=between.mottle, skewness=min(skewness, texture.skewness)), maps


def _clear_of_film(film: Film | None, shape: tuple[int, ...]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the edge of the film, and what is clear of film and edge; of the edge only, where hardly anything else is."""
    if film is None:
        return np.zeros(shape, bool), np.ones(shape, bool)
    width = max(min(shape) // 40, 3)
    edge = ndimage.binary_dilation(film.mask, iterations=width) & ~ndimage.binary_erosion(
        film.mask, iterations=width, border_value=1
    )
    hole = ~film.mask & ~edge
    return edge, hole if hole.mean() >= _LEAST_CLEAR else ~edge


def _collect(
    texture: Texture,
    spots: BraggSpots | None,
    *,
    maps: MicrographMaps,
    edge: NDArray[np.bool_],
    mottle: float,
    skewness: float,
) -> MicrographFeatures:
    film, dark = maps.film, maps.dark
    return MicrographFeatures(
        signal_to_noise=texture.signal_to_noise,
        mottle=mottle,
        bragg_share=None if spots is None else spots.share,
        bragg_spacing_ang=None if spots is None else spots.spacing_ang,
        anisotropy=texture.anisotropy,
        film_share=float(film.mean()),
        dark_share=float((dark & ~film).mean()),
        skewness=skewness,
        usable_share=float(1 - (film | dark | edge).mean()),
        particle_share=float((maps.particles & ~film).mean()),
    )


def _spread_tiles(spots: BraggSpots | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Draw the tiles with spots on the reduced image."""
    if spots is None:
        return np.zeros(shape, bool)
    rows, columns = (
        np.minimum((np.arange(side) * n) // side, n - 1) for side, n in zip(shape, spots.crystalline.shape, strict=True)
    )
    drawn: NDArray[np.bool_] = spots.crystalline[rows][:, columns]
    return drawn
