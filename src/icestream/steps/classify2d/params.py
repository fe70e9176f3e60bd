"""The parameters of 2D classification, one set for a stream, a closed set and fixed references; and what follows from them."""

import numpy as np
from scipy.fft import next_fast_len

from icestream.algorithms.classify2d import Setting
from icestream.algorithms.scoring import PolarGrid
from icestream.flow import Field, Params, before
from icestream.units import Angstrom, Degree

_EDGE_PX = 3.0
_START_ANG = 40.0
_START_WAVES = 3.0
"""Waves across a particle with which a classification begins, unless that is finer than 40 Å."""
_WARM_ANG = 25.0


class SearchParams(Params):
    """How particles are compared with class averages."""

    diameter_ang: Angstrom | None = Field(
        None, gt=0, description="Diameter of the round mask on the classes; unset: 0.8 of the box"
    )
    limit_ang: Angstrom = Field(9.0, gt=0, description="Finest resolution used; sets the size of the working images and the time")
    psi_step_deg: Degree = Field(
        4.0, gt=0, le=30, description="Coarsest step of the final rotation search; made finer as the resolution asks"
    )
    max_shift_ang: Angstrom = Field(12.0, ge=0, description="Largest shift of a particle from the centre of its box")


class Classify2DParams(SearchParams):
    """How particles are sorted into 2D classes."""

    n_classes: int = Field(16, ge=1, le=200, description="Number of classes")
    first_particles: int = Field(250, ge=1, description="Particles to wait for before the first classes")
    batch_particles: int = Field(200, ge=1, description="Least number of particles to wait for before each later update")
    batch_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of the particles so far to wait for before each later update, if that is more than `batch_particles`",
        json_schema_extra=before(2, 0.0),
    )
    reservoir_particles: int = Field(
        5000, ge=100, description="Most particles that an anneal passes over, a random sample of all so far"
    )
    first_iterations: int = Field(20, ge=4, description="Passes of the first anneal and of the one at the end")
    anneal_iterations: int = Field(8, ge=4, description="Passes of an anneal whenever the number of particles has doubled")
    tau_fudge: float = Field(
        1.0, gt=0, description="Trust in the averages over the smoothness prior; more shows more detail and more noise"
    )
    forgetting: float = Field(
        0.8, gt=0.5, le=1, description="Exponent of the online step size: 1 remembers all equally, less forgets the past"
    )


def plan_classification(
    params: SearchParams, *, box_px: int, pixel_size_ang: float, n_classes: int, tau_fudge: float = 1.0, forgetting: float = 0.8
) -> Setting:
    """Return the working size, rings, angles and radii for boxes of ``box_px``."""
    box_ang = box_px * pixel_size_ang
    largest = 2 * (box_px // 2)
    n_rings = max(3, min(int(box_ang / params.limit_ang), largest // 2 - 1))
    size = min(2 * next_fast_len(int(np.ceil(1.2 * n_rings)) + 1), largest)
    pixel_ang = box_ang / size
    radius_px = min((params.diameter_ang or 0.8 * box_ang) / 2 / pixel_ang, size / 2 - _EDGE_PX)
    extent = min(2 * (radius_px + params.max_shift_ang / pixel_ang + _EDGE_PX) / size, 1.0)
    n_angles = 24 * int(np.ceil(max(360 / params.psi_step_deg, 2 * np.pi * n_rings * extent) / 24))
    return Setting(
        grid=PolarGrid(size, n_rings, n_angles),
        n_classes=n_classes,
        mask_radius_px=radius_px,
        edge_px=_EDGE_PX,
        max_shift_px=params.max_shift_ang / pixel_ang,
        start_ring=min(n_rings, max(3, round(min(box_ang / _START_ANG, _START_WAVES * size / (2 * radius_px))))),
        warm_ring=min(n_rings, max(3, round(box_ang / _WARM_ANG))),
        tau_fudge=tau_fudge,
        forgetting=forgetting,
    )


def plan_for(params: Classify2DParams, *, box_px: int, pixel_size_ang: float) -> Setting:
    """Return the plan of a classification that finds its classes."""
    return plan_classification(
        params,
        box_px=box_px,
        pixel_size_ang=pixel_size_ang,
        n_classes=params.n_classes,
        tau_fudge=params.tau_fudge,
        forgetting=params.forgetting,
    )
