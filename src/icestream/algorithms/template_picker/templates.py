"""Templates for picking: images or views of a map, brought to one size, centred, masked, and thinned to those that differ."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.fourier import Image, crop_fourier_2d

WORKING_DIAMETER_PX = 24.0
"""Templates and micrographs are reduced until a particle is this wide: finer detail is below the noise of one particle."""

_EDGE = 0.08  # diameters over which the mask falls off
_ALIKE_ANGLES = 36
_MAP_PIXEL_ANG, _MAP_PX = 4.0, 64
_GOLDEN_DEG = 180.0 * (3.0 - np.sqrt(5.0))


def template_box_px(diameter_px: float) -> int:
    """Return the even side of a box that holds a masked template of ``diameter_px``."""
    return 2 * int(np.ceil(0.5 * (1.0 + 2 * _EDGE) * diameter_px)) + 2


def project_views(volume: NDArray[np.float32], *, pixel_size_ang: float, n_views: int) -> NDArray[np.float32]:
    """Project a map along directions that are even over the sphere: ``(n_views, b, b)``, ``b`` at most ``n``.

    A projection from behind is the mirror image of that from the front, and not the same template. The map is first reduced to
    pixels of 4 Å or, where they would be more, to 64 pixels.

    Parameters
    ----------
    volume
        ``(n, n, n)``, the particle in the middle (voxel ``n // 2``).
    pixel_size_ang
        Of the map.
    n_views
        Directions, on a spiral of golden angles (Vogel 1979, Math. Biosci. 44, 179).
    """
    wanted = max(min(int(volume.shape[0] * pixel_size_ang / _MAP_PIXEL_ANG), _MAP_PX), 8)
    size = min(2 * (wanted // 2), volume.shape[0])
    if size < volume.shape[0]:
        planes = crop_fourier_2d(volume, new_shape=(size, size))  # (n, size, size)
        volume = crop_fourier_2d(np.swapaxes(planes, 0, 1), new_shape=(size, size)).swapaxes(0, 1)  # (size, size, size)
    centre = size // 2
    along = np.arange(size) - centre
    grid = np.stack(np.meshgrid(along, along, along, indexing="ij")).reshape(3, -1).astype(np.float32)  # (3, n³)
    views = np.empty((n_views, size, size), dtype=np.float32)
    for index in range(n_views):
        height = 1 - 2 * (index + 0.5) / n_views
        tilt, turn = np.arccos(height), np.deg2rad(_GOLDEN_DEG * index)
        about_x = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])  # zyx
        about_z = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
        where = (about_z @ about_x).astype(np.float32) @ grid + centre
        turned = ndimage.map_coordinates(volume, where, order=1, mode="constant")  # (n³,)
        views[index] = turned.reshape(size, size, size).sum(axis=0)
    return views


def centre_mass_2d(image: Image, *, radius_px: float) -> Image:
    """Move the middle of the bright part of ``(b, b)``, within ``radius_px`` of pixel ``b // 2``, to that pixel."""
    moved = image
    for _ in range(2):
        inside = _disc_2d(image.shape[-1], radius_px=radius_px)
        weight = np.clip(moved - moved[~inside].mean(), 0, None) * inside
        weight = np.clip(weight - 0.3 * weight.max(), 0, None)
        if weight.sum() <= 0:
            return moved
        offset = np.array(ndimage.center_of_mass(weight)) - image.shape[-1] // 2
        moved = ndimage.shift(moved, -offset, order=1, mode="nearest")
    centred: Image = moved.astype(image.dtype, copy=False)
    return centred


def prepare_templates_2d(
    images: Image, *, pixel_size_ang: float, diameter_ang: float, centre: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.int64], float]:
    """Bring bright images of a particle to the working pixel size, centred, masked, with mean 0 and norm 1.

    Parameters
    ----------
    images
        ``(n, b, b)``, protein bright.
    pixel_size_ang
        Of the images.
    diameter_ang
        Of the particle, and of the round mask.
    centre
        Move the bright part of each to the middle.

    Returns
    -------
    templates, at, pixel_size_ang
        ``(m, b, b)`` without images that are empty, which images they are, ``(m,)``, and the size of their pixels.

    Raises
    ------
    ValueError
        The images are smaller than the particle.
    """
    if images.shape[-1] * pixel_size_ang < diameter_ang:
        raise ValueError(
            f"images of {images.shape[-1]} px at {pixel_size_ang:.3g} Å are smaller than a particle of {diameter_ang:g} Å; "
            "give larger images or a smaller diameter"
        )
    size = max(8, round(images.shape[-1] * pixel_size_ang / (diameter_ang / WORKING_DIAMETER_PX) / 2) * 2)
    small = crop_fourier_2d(np.asarray(images, dtype=np.float32), new_shape=(size, size))  # (n, size, size)
    pixel_ang = images.shape[-1] * pixel_size_ang / size
    diameter_px = diameter_ang / pixel_ang
    box_px = template_box_px(diameter_px)
    mask = soft_disc_2d(box_px, diameter_px=diameter_px)
    templates, at = [], []
    for index, image in enumerate(small):
        held = np.pad(image, max(0, box_px - size + 1), constant_values=_rim_mean(image))
        held = centre_mass_2d(held, radius_px=0.6 * diameter_px) if centre else held
        first = held.shape[0] // 2 - box_px // 2
        cut = held[first : first + box_px, first : first + box_px]  # (box, box)
        flat = (cut - (cut * mask).sum() / mask.sum()) * mask
        norm = float(np.sqrt((flat**2).sum()))
        if norm > 1e-6 * max(float(np.abs(images).max()), 1e-30):
            templates.append(flat / norm)
            at.append(index)
    prepared = np.asarray(templates, dtype=np.float32).reshape(-1, box_px, box_px)
    return prepared, np.asarray(at, dtype=np.int64), pixel_ang


def soft_disc_2d(box_px: int, *, diameter_px: float) -> NDArray[np.float32]:
    """Return a disc about pixel ``box_px // 2`` that falls from 1 to 0 by a cosine outside ``diameter_px``: ``(b, b)``."""
    offset = np.arange(box_px) - box_px // 2
    beyond = (np.hypot(offset[:, None], offset[None, :]) - 0.5 * diameter_px) / (_EDGE * diameter_px)
    disc: NDArray[np.float32] = (0.5 + 0.5 * np.cos(np.pi * np.clip(beyond, 0.0, 1.0))).astype(np.float32)
    return disc


def rotate_templates_2d(templates: NDArray[np.float32], *, n_angles: int) -> NDArray[np.float32]:
    """Turn each template ``(n, b, b)`` by ``n_angles`` angles over the full circle: ``(n, n_angles, b, b)``, from x towards y."""
    n_templates, box_px, _ = templates.shape
    offset = np.arange(box_px) - float(box_px // 2)
    y, x = np.meshgrid(offset, offset, indexing="ij")
    turned = np.empty((n_templates, n_angles, box_px, box_px), dtype=np.float32)
    for template, out in zip(templates, turned, strict=True):
        coefficients = ndimage.spline_filter(template, order=3, output=np.float32)
        for index, angle in enumerate(2 * np.pi * np.arange(n_angles) / n_angles):
            where = [
                np.cos(angle) * y - np.sin(angle) * x + box_px // 2,
                np.sin(angle) * y + np.cos(angle) * x + box_px // 2,
            ]
            ndimage.map_coordinates(coefficients, where, output=out[index], order=3, mode="constant", prefilter=False)
    return turned


def choose_different(templates: NDArray[np.float32], *, most: int, alike: float = 0.95) -> NDArray[np.int64]:
    """Choose templates that differ, whatever their turn: their indices, in the order of choice.

    The first is taken, then always the one that is least like those taken, until there are ``most`` or all others correlate with
    one of them by at least ``alike``.

    Parameters
    ----------
    templates
        ``(n, b, b)``, mean 0 and norm 1, the most trustworthy first.
    """
    if not len(templates):
        return np.empty(0, dtype=np.int64)
    turned = rotate_templates_2d(templates, n_angles=_ALIKE_ANGLES).reshape(len(templates), _ALIKE_ANGLES, -1)
    flat = templates.reshape(len(templates), -1)
    chosen = [0]
    likeness = np.einsum("ap,np->na", turned[0], flat).max(axis=1)  # (n,)
    while len(chosen) < most:
        furthest = int(np.argmin(likeness))
        if likeness[furthest] >= alike:
            break
        chosen.append(furthest)
        likeness = np.maximum(likeness, np.einsum("ap,np->na", turned[furthest], flat).max(axis=1))
        likeness[furthest] = np.inf
    return np.asarray(chosen, dtype=np.int64)


def _disc_2d(size: int, *, radius_px: float) -> NDArray[np.bool_]:
    offset = np.arange(size) - size // 2
    inside: NDArray[np.bool_] = np.hypot(offset[:, None], offset[None, :]) <= radius_px
    return inside


def _rim_mean(image: Image) -> float:
    return float(np.mean([image[0].mean(), image[-1].mean(), image[:, 0].mean(), image[:, -1].mean()]))
