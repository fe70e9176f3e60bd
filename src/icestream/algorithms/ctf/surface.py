"""A smooth surface of defocus over a micrograph: its value, its error and its tilt at any place.

The surface is a polynomial of degree 0 to 3 in coordinates that run from -1 to 1 along the longer side. Sample tilt follows from
the plane that is nearest to it over the field.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODEL_NAMES = ("constant", "plane", "quadratic", "cubic")
_GRID_SIDE = 9


@dataclass(frozen=True)
class DefocusSurface:
    """What is added to the defocus of a micrograph, place by place.

    Attributes
    ----------
    coefficients
        ``(n_terms,)`` in Å, n_terms 1, 3, 6 or 10; in the order of `surface_terms`.
    covariance
        ``(n_terms, n_terms)`` in Å².
    shape
        Height and width of the micrograph in pixels.
    """

    coefficients: NDArray[np.float64]
    covariance: NDArray[np.float64]
    shape: tuple[int, int]

    @property
    def degree(self) -> int:
        """Degree of the polynomial."""
        return degree_of_terms(self.coefficients.size)

    def offset_ang(self, yx_px: NDArray[Any]) -> NDArray[np.float64]:
        """Return what is added to the defocus at points ``(n, 2)``: ``(n,)``."""
        offset: NDArray[np.float64] = surface_terms(yx_px, shape=self.shape, degree=self.degree) @ self.coefficients
        return offset

    def error_ang(self, yx_px: NDArray[Any]) -> NDArray[np.float64]:
        """Return the standard error of `offset_ang` at points ``(n, 2)``: ``(n,)``."""
        terms = surface_terms(yx_px, shape=self.shape, degree=self.degree)
        error: NDArray[np.float64] = np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", terms, self.covariance, terms), 0.0))
        return error


@dataclass(frozen=True)
class SampleTilt:
    """The slope of a specimen.

    Attributes
    ----------
    angle_deg, angle_error_deg
        Between specimen and image plane, at least 0, and its standard error.
    axis_deg, axis_error_deg
        Direction of the tilt axis from x towards y, in (-180, 180]: a quarter turn from it, x towards y, the defocus grows. The
        error is at most 104°, that of a direction drawn by chance.
    """

    angle_deg: float
    angle_error_deg: float
    axis_deg: float
    axis_error_deg: float


def degree_of_terms(n_terms: int) -> int:
    """Return the degree of the surface that has ``n_terms`` terms.

    Raises
    ------
    ValueError
        There is none.
    """
    counts = [(degree + 1) * (degree + 2) // 2 for degree in range(len(MODEL_NAMES))]
    if n_terms not in counts:
        raise ValueError(f"a surface of {n_terms} terms does not exist; it must have {', '.join(map(str, counts))}")
    return counts.index(n_terms)


def surface_terms(yx_px: NDArray[Any], *, shape: tuple[int, int], degree: int) -> NDArray[np.float64]:
    """Return 1; u, v; u², uv, v²; u³, u²v, uv², v³ at points ``(n, 2)``, as far as ``degree``: ``(n, n_terms)``.

    ``u`` runs along y, ``v`` along x, both zero in the middle of the field and in units of half its longer side.
    """
    points = np.asarray(yx_px, np.float64)
    half = 0.5 * max(shape)
    u = (points[:, 0] - 0.5 * (shape[0] - 1)) / half
    v = (points[:, 1] - 0.5 * (shape[1] - 1)) / half
    return np.stack([u ** (total - k) * v**k for total in range(degree + 1) for k in range(total + 1)], axis=1)


def field_points(shape: tuple[int, int], *, side: int = _GRID_SIDE) -> NDArray[np.float64]:
    """Return a regular grid of points over a field, edges included: ``(side², 2)``, yx."""
    y, x = np.meshgrid(np.linspace(0, shape[0] - 1, side), np.linspace(0, shape[1] - 1, side), indexing="ij")
    return np.stack([y.ravel(), x.ravel()], axis=1)


def tilt_of_surface(surface: DefocusSurface, *, pixel_size_ang: float) -> SampleTilt | None:
    """Return the tilt of the plane that is nearest to a surface over the field; None for a constant, which tells no tilt."""
    if surface.degree == 0:
        return None
    points = field_points(surface.shape)
    plane = surface_terms(points, shape=surface.shape, degree=1)
    onto = np.linalg.pinv(plane)[1:] @ surface_terms(points, shape=surface.shape, degree=surface.degree)  # (2, n_terms)
    half_ang = 0.5 * max(surface.shape) * pixel_size_ang
    slope = onto @ surface.coefficients / half_ang  # (2,): along y and x
    covariance = onto @ surface.covariance @ onto.T / half_ang**2
    steep = float(np.hypot(*slope))
    along = slope / steep if steep > 0 else np.array([1.0, 0.0])
    across = np.array([-along[1], along[0]])
    slope_error, turn_error = (max(float(v @ covariance @ v), 0.0) ** 0.5 for v in (along, across))
    uphill_deg = float(np.rad2deg(np.arctan2(slope[0], slope[1])))
    axis_error_deg = float(np.rad2deg(turn_error / steep)) if steep > 0 else np.inf
    return SampleTilt(
        angle_deg=float(np.rad2deg(np.arctan(steep))),
        angle_error_deg=float(np.rad2deg(slope_error / (1.0 + steep**2))),
        axis_deg=180.0 - (90.0 - uphill_deg + 180.0) % 360.0 + 0.0,
        axis_error_deg=min(axis_error_deg, 360.0 / 12.0**0.5),
    )
