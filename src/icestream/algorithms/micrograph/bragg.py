"""Crystalline ice by its Bragg spots.

Vitreous ice has a diffuse ring at 3.7 Å, alike in all directions; crystals have spots on it. Spacings: hexagonal ice 3.90, 3.67,
3.44 Å, cubic ice 3.67 Å (Dowell & Rinfret 1960, Nature 188, 1144).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.fourier import Image, frequency_grid_2d, frequency_radius_2d

ICE_SPACINGS_ANG = (3.35, 4.0)
"""The finest and coarsest spacing at which spots are looked for."""

_TILE_PX = (128, 256)
_FALSE_TILES = 1e-4


@dataclass(frozen=True)
class BraggSpots:
    """Tiles with spots.

    ``crystalline`` is true for tiles with a spot ``(rows, columns)``, ``strength`` the highest spot of each over its ring,
    ``spacing_ang`` where the spots of those tiles are (their median; unset if there is none).
    """

    crystalline: NDArray[np.bool_]
    strength: NDArray[np.float64]
    spacing_ang: float | None

    @property
    def share(self) -> float:
        """Share of the tiles that have a spot."""
        return float(self.crystalline.mean())


def find_bragg_spots_2d(image: Image, *, pixel_size_ang: float) -> BraggSpots | None:
    """Look in each tile of a micrograph for spots of crystalline ice.

    The periodogram of a tile of vitreous ice and noise is, over its ring's level, exponentially distributed, so that the highest
    of ``N`` frequencies exceeds ``log(N / 1e-4)`` in one tile of ten thousand. The level of a ring is its median over all tiles
    over log 2. Lines along the axes, which cameras make, are left out.

    Parameters
    ----------
    image
        ``(h, w)`` at full resolution, finite, not dose-weighted where possible, since the weights take the spots away.
    pixel_size_ang
        Of the image.

    Returns
    -------
    spots
        None where the pixels are too coarse for 3.9 Å, or the image is smaller than 128 pixels.
    """
    nyquist_ang = 2 * pixel_size_ang
    if nyquist_ang > 3.8 or min(image.shape) < _TILE_PX[0]:
        return None
    tile = _TILE_PX[1] if min(image.shape) >= 2 * _TILE_PX[1] else _TILE_PX[0]
    rows, columns = (side // tile for side in image.shape)
    radius = frequency_radius_2d(tile, tile) / pixel_size_ang
    ky, kx = frequency_grid_2d(tile, tile)
    off_axes = (np.abs(ky) > 2.5 / tile) & (kx > 2.5 / tile) & (np.abs(ky) < 0.5) & (kx < 0.5)
    chosen = (radius >= 1 / ICE_SPACINGS_ANG[1]) & (radius <= min(1 / ICE_SPACINGS_ANG[0], 0.98 / nyquist_ang)) & off_axes
    ring = np.round(radius[chosen] * tile * pixel_size_ang).astype(int)  # (N,)
    power = np.stack([_tile_power(image, (i * tile, j * tile), tile)[chosen] for i in range(rows) for j in range(columns)])
    for one in np.unique(ring):
        same = ring == one
        power[:, same] /= max(float(np.median(power[:, same])) / np.log(2), 1e-30)  # our own new array, (tiles, N)
    highest = np.argmax(power, axis=1)
    strength = power[np.arange(len(power)), highest]
    crystalline = strength > np.log(ring.size / _FALSE_TILES)
    spacing = 1 / radius[chosen][highest]
    return BraggSpots(
        crystalline.reshape(rows, columns),
        strength.reshape(rows, columns),
        float(np.median(spacing[crystalline])) if crystalline.any() else None,
    )


def _tile_power(image: Image, start: tuple[int, int], tile: int) -> NDArray[np.float64]:
    y, x = start
    values = image[y : y + tile, x : x + tile].astype(np.float64)
    line = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(tile) + 0.5) / tile)
    power: NDArray[np.float64] = np.abs(fft.rfft2((values - values.mean()) * np.outer(line, line))) ** 2
    return power
