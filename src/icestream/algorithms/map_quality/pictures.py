"""Pictures of a map: sections and projections with a scale, local resolution in colours, and where particles were seen from."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.map_quality.orientations import Directions, spread_directions

Picture = NDArray[np.uint8]
"""``(h, w, 3)``, row 0 at the bottom."""

_TILE_PX, _GAP_PX = 192, 4
_COLOURS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)]) / 255


def scale_bar_ang(box_ang: float) -> float:
    """Return a round length of about a quarter of the box: 1, 2 or 5 times a power of ten."""
    wanted = box_ang / 4
    power = 10.0 ** np.floor(np.log10(wanted))
    return float(max(step * power for step in (1, 2, 5) if step * power <= wanted))


def draw_sections(volume: NDArray[Any], *, pixel_size_ang: float) -> Picture:
    """Draw three sections through the centre above three projections: across z, y and x, with a bar in the first.

    Each row has its own contrast. Across z, x runs to the right and y up; across y, x and z; across x, y and z. The length of the
    bar is `scale_bar_ang` of the box.
    """
    middle = volume.shape[0] // 2
    sections = [volume[middle], volume[:, middle], volume[:, :, middle]]
    projections = [volume.sum(axis=axis) for axis in range(3)]
    rows = [[_grey(tile, row) for tile in row] for row in (projections, sections)]
    sheet = _sheet(rows)
    bar = scale_bar_ang(volume.shape[0] * pixel_size_ang) / (volume.shape[0] * pixel_size_ang) * _TILE_PX
    top = _TILE_PX + _GAP_PX
    sheet[top + 8 : top + 12, 8 : 8 + round(bar)] = 255
    return sheet


def draw_local_resolution(
    volume: NDArray[Any], resolution_ang: NDArray[np.float32], *, limits_ang: tuple[float, float]
) -> Picture:
    """Draw three sections, bright where the map is, coloured by resolution; on the right a column from coarse (top) to fine.

    Parameters
    ----------
    resolution_ang
        ``(b, b, b)``, NaN where it was not measured.
    limits_ang
        Resolution of the first and the last colour: fine and coarse.
    """
    middle = volume.shape[0] // 2
    tiles = []
    sections = [(volume[middle], resolution_ang[middle]), (volume[:, middle], resolution_ang[:, middle])]
    sections.append((volume[:, :, middle], resolution_ang[:, :, middle]))
    maps = [section for section, _ in sections]
    for section, resolution in sections:
        bright = _grey(section, maps)[..., None] / 255.0  # (h, w, 1)
        share = (resolution - limits_ang[0]) / max(limits_ang[1] - limits_ang[0], 1e-6)
        colour = _colour(_enlarge(np.nan_to_num(share, nan=0.0), order=0))
        known = _enlarge(np.isfinite(resolution).astype(np.float32), order=0)[..., None] > 0.5
        tiles.append(np.rint(np.where(known, colour * (0.35 + 0.65 * bright), 0.6 * bright) * 255).astype(np.uint8))
    column = np.broadcast_to(_colour(np.linspace(0, 1, _TILE_PX))[:, None], (_TILE_PX, 16, 3))
    gap = np.zeros((_TILE_PX, _GAP_PX, 3), dtype=np.uint8)
    parts = [part for tile in tiles for part in (tile, gap)]
    return np.concatenate([*parts, np.rint(column * 255).astype(np.uint8)], axis=1)


def draw_views(views: Directions, *, n_bins: int = 768) -> Picture:
    """Draw how often each direction was seen, on the upper half of the sphere in equal areas: z in the middle, x to the right.

    A view and its opposite count as one. Black is never, the brightest colour twice as often as with even views, or more.
    """
    axis = np.linspace(-1, 1, 2 * _TILE_PX)
    x, y = np.meshgrid(axis, axis)
    radius = np.hypot(x, y)
    z = 1 - np.minimum(radius, 1) ** 2
    across = np.sqrt(np.maximum(1 - z * z, 0)) / np.maximum(radius, 1e-9)
    pixels = np.stack([x * across, y * across, z], axis=-1).reshape(-1, 3)
    density = smooth_density(views, pixels, n_bins=n_bins).reshape(x.shape)
    colour = _colour(np.clip(density / 2, 0, 1)) * np.clip(density / 0.25, 0, 1)[..., None]
    return np.asarray(np.rint(np.where((radius <= 1)[..., None], colour, 1.0) * 255), dtype=np.uint8)


def smooth_density(views: Directions, at: Directions, *, n_bins: int) -> NDArray[np.float64]:
    """Return how often directions are seen relative to even views, smoothed over about two bins."""
    bins = spread_directions(n_bins)
    sharpness = n_bins / 4.0
    counts = np.zeros(n_bins)
    for first in range(0, len(views), 4096):
        nearness = np.abs(views[first : first + 4096] @ bins.T)
        counts += np.exp(sharpness * (nearness**2 - 1)).sum(axis=0)
    even = np.exp(sharpness * (((np.arange(2000) + 0.5) / 2000) ** 2 - 1)).mean() * len(views)
    near = np.argmax(np.abs(at @ bins.T), axis=1)
    density: NDArray[np.float64] = (counts / even)[near]
    return density


def _sheet(rows: list[list[NDArray[np.uint8]]]) -> Picture:
    """Put tiles side by side, the first row at the bottom."""
    height, width = len(rows) * (_TILE_PX + _GAP_PX) - _GAP_PX, len(rows[0]) * (_TILE_PX + _GAP_PX) - _GAP_PX
    sheet = np.zeros((height, width, 3), dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            y, x = i * (_TILE_PX + _GAP_PX), j * (_TILE_PX + _GAP_PX)
            sheet[y : y + _TILE_PX, x : x + _TILE_PX] = tile[..., None]
    return sheet


def _grey(tile: NDArray[Any], alike: list[NDArray[Any]]) -> NDArray[np.uint8]:
    """Return a tile in grey of `_TILE_PX`, its contrast that of all tiles of its kind."""
    low, high = np.percentile(np.concatenate([one.ravel() for one in alike]), (1, 99.8))
    large = _enlarge(np.asarray(tile, dtype=np.float32), order=1)
    return np.asarray(np.rint(np.clip((large - low) / max(float(high - low), 1e-12), 0, 1) * 255), dtype=np.uint8)


def _enlarge(tile: NDArray[Any], *, order: int) -> NDArray[np.float32]:
    """Resample a square tile to `_TILE_PX`."""
    places = (np.arange(_TILE_PX) + 0.5) * tile.shape[0] / _TILE_PX - 0.5
    grid = np.meshgrid(places, places, indexing="ij")
    return np.asarray(ndimage.map_coordinates(np.asarray(tile, dtype=np.float32), grid, order=order, mode="nearest"))


def _colour(share: NDArray[Any]) -> NDArray[np.float64]:
    """Return colours ``(..., 3)`` from dark violet (0) to yellow (1)."""
    at = np.linspace(0, 1, len(_COLOURS))
    return np.stack([np.interp(share, at, _COLOURS[:, channel]) for channel in range(3)], axis=-1)
