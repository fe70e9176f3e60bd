"""A counting camera: gain, defects and Poisson counts.

The camera is ideal otherwise (every electron counted once, no coincidence loss, MTF 1), and so is its gain reference.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

_HOT_FACTOR = 30.0


@dataclass(frozen=True)
class Camera:
    """What the camera makes of electrons.

    Attributes
    ----------
    gain
        ``(h, w)``: corrected = raw * gain. 0 at dead pixels; hot pixels look innocent.
    response
        ``(h, w)``: raw counts per electron, 1 / gain; 0 at dead and many at hot pixels.
    dead_yx, hot_yx
        Positions of the defects.
    """

    gain: NDArray[np.float32]
    response: NDArray[np.float32]
    dead_yx: tuple[tuple[int, int], ...]
    hot_yx: tuple[tuple[int, int], ...]

    @property
    def inverse_gain(self) -> NDArray[np.float32]:
        """``(h, w)``: corrected = raw / inverse gain; 0 at dead pixels."""
        return np.divide(1, self.gain, out=np.zeros_like(self.gain), where=self.gain > 0)

    def cut(self, shape: tuple[int, int]) -> "Camera":
        """Return the corner ``shape`` of this camera, as read out with a smaller area."""
        height, width = shape
        dead = tuple((y, x) for y, x in self.dead_yx if y < height and x < width)
        hot = tuple((y, x) for y, x in self.hot_yx if y < height and x < width)
        return Camera(self.gain[:height, :width], self.response[:height, :width], dead, hot)


def make_camera(
    shape: tuple[int, int], *, gain: bool, n_dead_pixels: int, n_hot_pixels: int, generator: np.random.Generator
) -> Camera:
    """Draw a camera whose gain has the structure of real ones: read-out blocks, columns, rows and single pixels.

    Without ``gain`` the camera is perfect and has no defects.
    """
    if not gain:
        return Camera(np.ones(shape, np.float32), np.ones(shape, np.float32), (), ())
    height, width = shape
    blocks = generator.normal(0, 0.03, 8).repeat(-(-width // 8))[:width]
    columns = generator.normal(0, 0.02, width) + blocks
    rows = generator.normal(0, 0.015, (height, 1))
    pixels = generator.normal(0, 0.03, shape)
    structure = np.exp(columns + rows + pixels)  # (h, w)
    reference: NDArray[np.float32] = (structure / structure.mean()).astype(np.float32)
    flat = generator.choice(height * width, min(n_dead_pixels + n_hot_pixels, height * width), replace=False)
    positions = [(int(index) // width, int(index) % width) for index in flat]
    dead, hot = tuple(positions[:n_dead_pixels]), tuple(positions[n_dead_pixels:])
    response: NDArray[np.float32] = np.reciprocal(reference)
    for y, x in dead:
        reference[y, x] = 0.0
        response[y, x] = 0.0
    for y, x in hot:
        response[y, x] *= _HOT_FACTOR
    return Camera(reference, response, dead, hot)


@njit(cache=True)
def _invert_poisson(mean: NDArray[np.float32], uniform: NDArray[np.float32], out: NDArray[np.int32]) -> None:
    for i in range(mean.size):
        probability = np.exp(-np.float64(mean[i]))
        total = probability
        count = 0
        while uniform[i] >= total and count < 200:
            count += 1
            probability *= mean[i] / count
            total += probability
        out[i] = count


def count_electrons(expected: NDArray[np.float32], *, generator: np.random.Generator) -> NDArray[np.int32]:
    """Draw Poisson counts about ``expected`` (any shape; negative values count as 0).

    Means up to 16 by inversion of the distribution (24-bit uniform numbers), larger ones by NumPy.
    """
    mean = np.maximum(expected, 0).astype(np.float32)
    uniform = generator.random(mean.shape, dtype=np.float32)
    counts = np.empty(mean.shape, np.int32)
    large = mean > 16
    _invert_poisson(np.where(large, np.float32(0), mean).ravel(), uniform.ravel(), counts.ravel())
    if large.any():
        counts[large] = generator.poisson(mean[large])
    return counts
