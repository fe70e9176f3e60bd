"""Turned templates as combinations of a few images, so that a micrograph is correlated with a few dozen instead of thousands."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from icestream.algorithms.template_picker.templates import rotate_templates_2d

N_ANGLES = 36
_LOST = 0.01  # part of the templates' energy that compression may lose
_MOST_EIGENIMAGES = 160
_MOST_PIXELS = 1 << 12  # whose scores are computed together


@dataclass(frozen=True)
class Eigenimages:
    """Turned templates as combinations of a few images.

    Attributes
    ----------
    images
        ``(k, b, b)``, those that hold the most first.
    weights
        ``(k, n * n_angles)``: template ``j`` at angle ``a`` is ``sum_k weights[k, j * n_angles + a] images[k]``.
    n_angles
        Turns of each template.
    """

    images: NDArray[np.float32]
    weights: NDArray[np.float32]
    n_angles: int

    @property
    def box_px(self) -> int:
        """Side of the images."""
        return int(self.images.shape[-1])

    def leading(self, *, lost: float) -> "Eigenimages":
        """Return the first images, which hold all but the part ``lost`` of what all hold."""
        energy = np.cumsum((self.weights.astype(np.float64) ** 2).sum(axis=1))
        kept = 1 + int(np.searchsorted(energy / energy[-1], 1 - lost))
        return Eigenimages(self.images[:kept], self.weights[:kept], self.n_angles)

    def draw(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return turned templates by their number among all: ``(n, b, b)``."""
        drawn: NDArray[np.float32] = np.tensordot(self.weights[:, index].T, self.images, axes=1)
        return drawn


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
    return Eigenimages(images.astype(np.float32), weights.astype(np.float32), n_angles)


def transform_centred(image: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Return the half spectrum of ``(b, b)`` in a field of ``shape``, pixel ``b // 2`` at the origin."""
    along, across = _waves(image.shape[-1], shape)
    return (along @ image.astype(np.complex64)) @ across


@lru_cache(maxsize=4)
def _waves(box_px: int, shape: tuple[int, int]) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    at = np.arange(box_px) - box_px // 2
    along = np.exp(-2j * np.pi * np.outer(np.fft.fftfreq(shape[0]), at)).astype(np.complex64)  # (h, b)
    across = np.exp(-2j * np.pi * np.outer(at, np.fft.rfftfreq(shape[1]))).astype(np.complex64)  # (b, w // 2 + 1)
    return along, across


def best_scores(
    responses: NDArray[np.float32], weights: NDArray[np.float32], *, both: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return the largest combination of ``responses`` ``(k, m)`` by ``weights`` ``(k, p)``, ``(m,)``; also minus the smallest."""
    best = np.empty(responses.shape[1], dtype=np.float32)
    worst = np.empty_like(best) if both else None
    for start in range(0, len(best), _MOST_PIXELS):
        rows = slice(start, start + _MOST_PIXELS)
        combined = weights.T @ responses[:, rows]
        combined.max(axis=0, out=best[rows])
        if worst is not None:
            combined.min(axis=0, out=worst[rows])
    return best, None if worst is None else -worst
