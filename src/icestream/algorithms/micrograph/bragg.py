"""Crystalline ice by its Bragg spots.

Vitreous ice has a diffuse ring at 3.7 Å, alike in all directions; crystals have spots on it. Spacings: hexagonal ice 3.90, 3.67,
3.44 Å, cubic ice 3.67 Å (Dowell & Rinfret 1960, Nature 188, 1144).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.fourier import Image, frequency_grid_2d, frequency_radius_2d

ICE_SPACINGS_ANG = (3.35, 4.0)
"""The finest and coarsest spacing at which spots are looked for."""

_TILE_PX = (128, 256)
_FALSE_TILES = 1e-4
_FALSE_CELLS = 0.01
_MOST_SPOTS = 3
_EDGE_AMPLITUDE = 0.55
_CELLS_AROUND = 2
CELLS_PER_TILE = 8
"""Cells along the side of a tile in which the border of a crystal is told."""


@dataclass(frozen=True)
class Spot:
    """A spot of one tile: its frequency per pixel, and the level of the periodogram at its ring."""

    row: int
    column: int
    frequency_yx: tuple[float, float]
    level: float


@dataclass(frozen=True)
class BraggSpots:
    """Tiles with spots.

    ``crystalline`` is true for tiles with a spot ``(rows, columns)``, ``strength`` the highest spot of each over its ring,
    ``spacing_ang`` where the spots of those tiles are (their median; unset if there is none), ``spots`` the strongest of each.
    """

    crystalline: NDArray[np.bool_]
    strength: NDArray[np.float64]
    spacing_ang: float | None
    tile_px: int
    spots: tuple[Spot, ...]

    @property
    def share(self) -> float:
        """Share of the tiles that have a spot."""
        return float(self.crystalline.mean())


def find_bragg_spots_2d(image: Image, *, pixel_size_ang: float, only_ice: bool = False) -> BraggSpots | None:
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
    only_ice
        Leave out more that is no ice: what compressed pictures and some cameras make, at multiples of 1/8 per pixel along both
        axes and beside the ends of the axes; and the grain of a film, by measuring a tile against its own level where that is
        above the others'.

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
    if only_ice:
        off_axes &= np.maximum(*(np.abs(8 * axis - np.round(8 * axis)) / 8 for axis in (ky, kx))) > 1.5 / tile
        off_axes &= (np.minimum(np.abs(ky), kx) > 8.5 / tile) | (np.maximum(np.abs(ky), kx) < 0.45)
    chosen = (radius >= 1 / ICE_SPACINGS_ANG[1]) & (radius <= min(1 / ICE_SPACINGS_ANG[0], 0.98 / nyquist_ang)) & off_axes
    ring = np.round(radius[chosen] * tile * pixel_size_ang).astype(int)  # (N,)
    power = np.stack([_tile_power(image, (i * tile, j * tile), tile)[chosen] for i in range(rows) for j in range(columns)])
    level = np.empty(power.shape)
    for one in np.unique(ring):
        same = ring == one
        level[:, same] = max(float(np.median(power[:, same])) / np.log(2), 1e-30)
    power /= level  # our own new array, (tiles, N)
    if only_ice:
        own = np.maximum(np.median(power, axis=1, keepdims=True) / np.log(2), 1.0)
        power, level = power / own, level * own
    highest = np.argmax(power, axis=1)
    strength = power[np.arange(len(power)), highest]
    crystalline = strength > np.log(ring.size / _FALSE_TILES)
    spacing = 1 / radius[chosen][highest]
    frequency = np.stack([(axis + np.zeros(radius.shape))[chosen] for axis in (ky, kx)], axis=1)  # (N, 2)
    spots = [
        Spot(int(tile_index) // columns, int(tile_index) % columns, (float(at[0]), float(at[1])), float(level[tile_index, place]))
        for tile_index in np.flatnonzero(crystalline)
        for place, at in _strongest(power[tile_index], frequency, least=float(np.log(ring.size / _FALSE_TILES)), tile=tile)
    ]
    return BraggSpots(
        crystalline.reshape(rows, columns),
        strength.reshape(rows, columns),
        float(np.median(spacing[crystalline])) if crystalline.any() else None,
        tile,
        tuple(spots),
    )


def _strongest(
    power: NDArray[np.float64], frequency: NDArray[np.float64], *, least: float, tile: int
) -> list[tuple[int, NDArray[np.float64]]]:
    """Return index and frequency of the highest few spots of a tile that are apart."""
    found: list[tuple[int, NDArray[np.float64]]] = []
    for place in np.argsort(-power)[: 4 * _MOST_SPOTS].tolist():
        apart = all(np.abs(frequency[place] - other).max() > 2.5 / tile for _, other in found)
        if power[place] > least and apart and len(found) < _MOST_SPOTS:
            found.append((place, frequency[place]))
    return found


def outline_crystals_2d(image: Image, found: BraggSpots) -> NDArray[np.bool_]:
    """Return where the waves of the spots are: ``(8 rows, 8 columns)``, true in cells of an eighth of a tile.

    Around each tile with a spot the image is demodulated with the spot's frequency and blurred by a Gaussian of one cell. The
    crystal is where the amplitude is half of its highest, which for a straight border is the border, and where such a power is
    noise in one cell of a hundred only; it is in one piece.

    Parameters
    ----------
    image
        ``(h, w)``, in which the spots were found.
    """
    cell = found.tile_px // CELLS_PER_TILE
    shape = tuple(side * CELLS_PER_TILE for side in found.crystalline.shape)
    mask = np.zeros(shape, bool)
    line = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(found.tile_px) + 0.5) / found.tile_px)
    for spot in found.spots:
        cells, pixels, waves = [], [], []
        for tile_index, frequency, side, n_cells in zip(
            (spot.row, spot.column), spot.frequency_yx, image.shape, shape, strict=True
        ):
            first = max(tile_index * CELLS_PER_TILE - _CELLS_AROUND, 0)
            last = min((tile_index + 1) * CELLS_PER_TILE + _CELLS_AROUND, n_cells)
            along = np.arange(max((first - 2) * cell, 0), min((last + 2) * cell, side))
            middle = (np.arange(first, last) + 0.5) * cell - 0.5
            weight = np.exp(-0.5 * ((along - middle[:, None]) / cell) ** 2)  # (n, m)
            cells.append(slice(first, last))
            pixels.append(slice(int(along[0]), int(along[-1]) + 1))
            waves.append((weight, np.exp(-2j * np.pi * frequency * along)))
        (weight_y, wave_y), (weight_x, wave_x) = waves
        part = image[pixels[0], pixels[1]].astype(np.float64)
        amplitude = np.abs((weight_y * wave_y) @ (part - part.mean()) @ (weight_x * wave_x).T)  # (n, n')
        noise = spot.level / np.sum(line**2) ** 2 * np.outer(*(np.sum(weight**2, axis=1) for weight in (weight_y, weight_x)))
        amplitude /= np.outer(weight_y.sum(1), weight_x.sum(1))
        sure = amplitude**2 * np.outer(weight_y.sum(1), weight_x.sum(1)) ** 2 > noise * np.log(1 / _FALSE_CELLS)
        labels, _ = ndimage.label(sure & (amplitude > _EDGE_AMPLITUDE * amplitude.max()))
        highest = labels[np.unravel_index(np.argmax(amplitude), amplitude.shape)]
        mask[cells[0], cells[1]] |= (labels == highest) & (highest > 0)
    return mask


def _tile_power(image: Image, start: tuple[int, int], tile: int) -> NDArray[np.float64]:
    y, x = start
    values = image[y : y + tile, x : x + tile].astype(np.float64)
    line = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(tile) + 0.5) / tile)
    power: NDArray[np.float64] = np.abs(fft.rfft2((values - values.mean()) * np.outer(line, line))) ** 2
    return power
