"""References ready to be scored against: shifted, weighted by the noise, and compressed to what they span.

With independent complex Gaussian noise of power ``S`` per Fourier component an image ``X`` taken through the CTF ``C`` has, for
a reference ``A`` shifted by ``t`` and then turned by ``psi``, ``log p = sum (2 Re(C X conj A) - C² |A|²) / S`` (Scheres 2012,
J. Mol. Biol. 415, 406; Sigworth 1998, J. Struct. Biol. 122, 328). In angular orders the first term is a product of matrices for
each order. Every reference lies in the span of all, so an image may be replaced by its projection on that span, order by order
(after the radial recombination of Rangan 2022, Inverse Problems, doi 10.1088/1361-6420/aca047, with the references, not the
images, choosing the basis); the basis is real, so it holds the mirror images of the references too.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.namespaces import CORES, Array, Place, to_numpy
from icestream.algorithms.scoring.polar import Polar, PolarGrid, Real, angular_orders, polar_from_orders, shift_ramps

_REFERENCES_AT_ONCE = 16


@dataclass(frozen=True)
class Level:
    """How finely to search: rings and turns (the angles of ``grid``), shifts ``(n, 2)`` and their log prior ``(n,)``."""

    grid: PolarGrid
    shifts_yx_px: NDArray[np.float64]
    log_prior: Real


@dataclass(frozen=True)
class Bank:
    """References at a level.

    For each angular order ``q`` there are ``basis[q]`` ``(n_rings, h)``, which takes the orders of an image to its coefficients,
    and ``columns[q]`` ``(2, h, k * n_shifts)``, the real and imaginary parts of the coefficients of each shifted reference.
    ``energy`` ``(n_rings, k)`` is what CTF² multiplies. All live at ``place``.
    """

    level: Level
    n_references: int
    basis: tuple[Array, ...]
    columns: tuple[Array, ...]
    energy: Array
    place: Place

    @property
    def n_shifts(self) -> int:
        """How many shifts each reference has."""
        return len(self.level.shifts_yx_px)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where the coefficients of each order start in a row of `rows`: ``(n_orders + 1,)``."""
        return np.cumsum([0, *(basis.shape[1] for basis in self.basis)])

    @cached_property
    def rows(self) -> Polar:
        """The conjugate coefficients of each shifted reference, all orders, on the host: ``(k * n_shifts, h of all orders)``."""
        whole = np.concatenate([to_numpy(c) for c in self.columns], axis=1)  # (2, h, k * n_shifts)
        return np.ascontiguousarray((whole[0] - 1j * whole[1]).T.astype(np.complex64))


def make_level(grid: PolarGrid, *, n_rings: int, n_turns: int, shift_step_px: float, max_shift_px: float) -> Level:
    """Return a search over the first rings, ``n_turns`` turns and a disc of shifts, of which nearer ones win when equal."""
    steps = int(np.floor(max_shift_px / shift_step_px + 1e-6))
    y, x = np.mgrid[-steps : steps + 1, -steps : steps + 1] * shift_step_px
    inside = y * y + x * x <= max_shift_px**2 + 1e-6
    shifts = np.stack([y[inside], x[inside]], axis=1)  # (n_shifts, 2)
    sigma = max(max_shift_px / 2, 1e-3)
    log_prior = (-0.5 * (shifts**2).sum(axis=1) / sigma**2).astype(np.float32)
    return Level(PolarGrid(grid.box_px, min(n_rings, grid.n_rings), n_turns), shifts, log_prior)


def make_bank(
    references: Polar,
    *,
    grid: PolarGrid,
    level: Level,
    noise_power: Real,
    overlap: float,
    mirrored: bool = False,
    discarded: float = 3e-4,
    place: Place = CORES,
) -> Bank:
    """Prepare references for scoring.

    Parameters
    ----------
    references
        ``(k, n_orders, n_rings)``, angular orders on ``grid``.
    grid
        Of the references; its angles carry the shifts.
    level
        Where to search.
    noise_power
        ``(n_rings,)``, mean squared modulus of the noise in one component.
    overlap
        Fraction of the box's area that the mask on the images leaves: neighbouring components are correlated by it.
    mirrored
        Add the mirror image (``y`` to ``-y``) of each reference: reference ``k + j`` is that of ``j``. The view of a volume from
        the other side is the mirror image of the view from this side.
    discarded
        Fraction of the energy of the references that the basis may lose.
    place
        Where the bank is to live.
    """
    rings = level.grid.n_rings
    radii = np.arange(1, rings + 1)
    weight = 2 * np.pi * radii * overlap / grid.n_angles / noise_power[:rings]  # (n_rings,), for sums over the full circle
    cut = np.asarray(references[..., :rings])
    if mirrored:
        sign = np.where(np.arange(cut.shape[1]) % 2, -1.0, 1.0).astype(np.float32)[:, None]
        cut = np.concatenate([cut, np.conj(cut) * sign])
    n_orders = min(level.grid.half, cut.shape[1])
    shifted = _shift_references(cut, grid, level, n_orders) * np.sqrt(weight).astype(np.float32)[None, :, None]
    bases = _span(shifted, discarded)
    columns = []
    for q, vectors in enumerate(bases):
        scale = np.float32((1 if q == 0 else 2) / grid.n_angles)
        planes = np.stack([vectors.T @ shifted[q].real, vectors.T @ shifted[q].imag]) * scale  # (2, h, k * n_shifts)
        columns.append(place.put(planes.astype(np.float32)))
    bases = [(vectors * np.sqrt(weight)[:, None]).astype(np.float32) for vectors in bases]
    power = np.square(np.abs(cut)).transpose(2, 0, 1) @ _parseval(cut.shape[1], grid)  # (n_rings, k)
    energy = (power * weight[:, None]).astype(np.float32)
    return Bank(level, len(cut), tuple(place.put(v) for v in bases), tuple(columns), place.put(energy), place)


def _shift_references(references: Polar, grid: PolarGrid, level: Level, n_orders: int) -> Polar:
    """Return the angular orders of all shifted references: ``(n_orders, n_rings, k * n_shifts)``."""
    n, n_shifts, rings = len(references), len(level.shifts_yx_px), level.grid.n_rings
    fine = PolarGrid(grid.box_px, rings, grid.n_angles)
    ramps = shift_ramps(level.shifts_yx_px, grid=fine)  # (n_shifts, n_rings, half)
    out = np.empty((n_orders, rings, n, n_shifts), dtype=np.complex64)
    for start in range(0, n, _REFERENCES_AT_ONCE):
        some = slice(start, start + _REFERENCES_AT_ONCE)
        polar = polar_from_orders(references[some].transpose(0, 2, 1), grid=fine)  # (b, n_rings, half)
        orders = angular_orders(polar[:, None] * ramps, n_orders=n_orders)  # (b, n_shifts, n_rings, n_orders)
        out[:, :, some] = orders.transpose(3, 2, 0, 1)
    return out.reshape(n_orders, rings, -1)


def _span(shifted: Polar, discarded: float) -> list[NDArray[np.float64]]:
    """Return for each order real orthonormal vectors ``(n_rings, h)``, ``h >= 1``, that span the columns of ``shifted``."""
    values, vectors = [], []
    for q, columns in enumerate(shifted):
        gram = columns.real @ columns.real.T + columns.imag @ columns.imag.T  # (n_rings, n_rings)
        value, vector = np.linalg.eigh(gram.astype(np.float64))
        values.append(np.maximum(value, 0.0) * (1 if q == 0 else 2))
        vectors.append(vector)
    ranked = np.sort(np.concatenate(values))
    lost = np.cumsum(ranked)
    floor = ranked[min(np.searchsorted(lost, discarded * lost[-1]), len(ranked) - 1)]
    return [
        vector[:, min(np.searchsorted(value, floor), len(value) - 1) :] for value, vector in zip(values, vectors, strict=True)
    ]


def _parseval(n_orders: int, grid: PolarGrid) -> Real:
    """Return the weights that turn squared moduli of orders into the sum over half the circle."""
    weight = np.full(n_orders, 1.0 / grid.n_angles, dtype=np.float32)
    weight[0] /= 2
    return weight
