"""Streaming 2D classification."""

from icestream.algorithms.classify2d.em import (
    Assignment,
    Model,
    Setting,
    anneal,
    assign,
    balance_classes,
    commit,
    estimate,
    expect,
    level_of,
    prepare_particles_2d,
    render,
    seed_averages,
)
from icestream.algorithms.classify2d.model import Averages, Sums, orders_of_stored, smooth_curves, sum_poses_2d

__all__ = [
    "Assignment",
    "Averages",
    "Model",
    "Setting",
    "Sums",
    "anneal",
    "assign",
    "balance_classes",
    "commit",
    "estimate",
    "expect",
    "level_of",
    "orders_of_stored",
    "prepare_particles_2d",
    "render",
    "seed_averages",
    "smooth_curves",
    "sum_poses_2d",
]
