"""A made-up protein: a chain of helices and loops folded into domains, as beads."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icestream.microscope.potential import ICE_POTENTIAL_V, PROTEIN_ABOVE_ICE_V, PROTEIN_DA_PER_ANG3

_DA_PER_RESIDUE = 110.0
_FILLED_FRACTION = 0.9
_CELL_ANG = 4.0
_CANDIDATES = 32
_HELIX_RADIUS_ANG = 2.3
_SIDE_CHAIN_RADIUS_ANG = 5.5


@dataclass(frozen=True)
class Beads:
    """Two beads per residue, main chain and side chain: ``(n, 3)`` and ``(n,)`` arrays."""

    zyx_ang: NDArray[np.float64]
    weight_v_ang3: NDArray[np.float64]
    mass_da: NDArray[np.float64]
    sigma_ang: NDArray[np.float64]


@dataclass(frozen=True)
class Domain:
    """An ellipsoid in which a part of the chain folds."""

    centre: NDArray[np.float64]
    semi_axes: NDArray[np.float64]

    def depth(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return 0 at the centre, 1 at the border, for ``(..., 3)`` points."""
        depth: NDArray[np.float64] = np.linalg.norm((points - self.centre) / self.semi_axes, axis=-1)
        return depth


# In radii of the particle: centre zyx and semi-axes zyx. A big body, a lid, an arm, a foot and a small knob, all different and
# on no common axis, around a gap beside the middle.
_LAYOUT = (
    ((-0.18, -0.22, -0.12), (0.50, 0.60, 0.66)),
    ((0.42, 0.08, -0.24), (0.34, 0.46, 0.42)),
    ((0.06, 0.52, 0.16), (0.42, 0.34, 0.34)),
    ((-0.16, 0.02, 0.60), (0.30, 0.36, 0.32)),
    ((0.50, -0.34, 0.30), (0.27, 0.30, 0.30)),
)


def fold_chain(diameter_ang: float, *, generator: np.random.Generator) -> Beads:
    """Fold a chain of helices (10 to 24 residues) and loops (2 to 5) into domains of a particle of ``diameter_ang``.

    Each helix starts where the last one ended and takes, of many random directions, the one with most room in its domain.
    """
    chains = []
    cells = np.zeros((int(2 * diameter_ang / _CELL_ANG) + 1,) * 3)
    for domain in _place_domains(diameter_ang / 2, generator=generator):
        volume_ang3 = 4 / 3 * np.pi * float(np.prod(domain.semi_axes))
        n_residues = max(int(_FILLED_FRACTION * volume_ang3 * PROTEIN_DA_PER_ANG3 / _DA_PER_RESIDUE), 12)
        chains.append(_fold_domain(domain, n_residues, cells, generator=generator))
    zyx_ang = np.concatenate(chains)  # (2 * residues, 3)
    zyx_ang = zyx_ang - zyx_ang.mean(0)
    radius_ang = float(np.linalg.norm(zyx_ang, axis=1).max())
    zyx_ang *= min(1.0, (0.5 * diameter_ang - 3.0) / radius_ang)
    mass_da = np.full(len(zyx_ang), _DA_PER_RESIDUE / 2)
    weight_v_ang3 = mass_da / PROTEIN_DA_PER_ANG3 * (ICE_POTENTIAL_V + PROTEIN_ABOVE_ICE_V)
    sigma_ang = np.tile([1.3, 1.7], len(zyx_ang) // 2)
    return Beads(zyx_ang, weight_v_ang3, mass_da, sigma_ang)


def _place_domains(radius_ang: float, *, generator: np.random.Generator) -> list[Domain]:
    domains = []
    for centre, semi_axes in _LAYOUT:
        moved = np.array(centre) + generator.uniform(-0.06, 0.06, 3)
        stretched = np.array(semi_axes) * generator.uniform(0.9, 1.1, 3)
        domains.append(Domain(moved * radius_ang, stretched * radius_ang))
    return domains


def _fold_domain(
    domain: Domain, n_residues: int, cells: NDArray[np.float64], *, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return main-chain and side-chain beads in turn, ``(2 * n_residues, 3)``, and mark their room in ``cells``."""
    end = domain.centre + generator.normal(0, 0.3, 3) * domain.semi_axes
    beads: list[NDArray[np.float64]] = []
    n_beads = 0
    while n_beads < 2 * n_residues:
        length = int(generator.integers(10, 25))
        directions = generator.normal(size=(_CANDIDATES, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        starts = end + directions * generator.uniform(6.0, 12.0, (_CANDIDATES, 1))
        turns = generator.normal(size=(_CANDIDATES, 3))
        turns /= np.linalg.norm(turns, axis=1, keepdims=True)
        axes = starts[:, None, :] + turns[:, None, :] * (1.5 * np.arange(length))[None, :, None]  # (candidates, length, 3)
        index = np.clip((axes / _CELL_ANG).astype(int) + cells.shape[0] // 2, 0, cells.shape[0] - 1)
        crowd = cells[index[..., 0], index[..., 1], index[..., 2]].mean(1)
        outside = np.clip(domain.depth(axes) - 0.9, 0.0, None).max(1)
        best = int(np.argmin(crowd + 100.0 * outside + generator.uniform(0, 0.05, _CANDIDATES)))
        helix = _wind_helix(axes[best], turns[best], generator=generator)
        loop = end + (axes[best, 0] - end) * np.linspace(0.25, 0.75, 2)[:, None]
        beads += [np.repeat(loop, 2, axis=0) + generator.normal(0, 1.5, (4, 3)), helix]
        n_beads += 4 + 2 * length
        _occupy(cells, index[best])
        end = axes[best, -1]
    return np.concatenate(beads)[: 2 * n_residues]


def _wind_helix(
    axis: NDArray[np.float64], direction: NDArray[np.float64], *, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Wind a right-handed alpha helix (100 degrees a residue) about ``axis`` ``(length, 3)``, zyx: ``(2 * length, 3)``."""
    away = np.eye(3)[int(np.argmin(np.abs(direction)))]
    first = np.cross(direction, away)
    first /= np.linalg.norm(first)
    # zyx vectors: a right-handed turn in xyz is a left-handed cross product in zyx.
    second = np.cross(first, direction)
    angle = np.deg2rad(100.0) * np.arange(len(axis)) + generator.uniform(0, 2 * np.pi)
    radial = np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second  # (length, 3)
    side_ang = generator.uniform(0.7, 1.15, (len(axis), 1)) * _SIDE_CHAIN_RADIUS_ANG
    pairs = np.stack([axis + _HELIX_RADIUS_ANG * radial, axis + side_ang * radial], axis=1)  # (length, 2, 3)
    return pairs.reshape(-1, 3)


def _occupy(cells: NDArray[np.float64], index: NDArray[np.intp]) -> None:
    """Mark the neighbourhood of a new helix, ``(length, 3)``, as taken in ``cells``, the array being filled."""
    steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)  # (125, 3)
    around = np.clip(index[:, None, :] + steps[None], 0, cells.shape[0] - 1).reshape(-1, 3)
    weight = np.tile(np.exp(-0.5 * (np.linalg.norm(steps, axis=1) / 1.2) ** 2), len(index))
    np.add.at(cells, (around[:, 0], around[:, 1], around[:, 2]), weight)
