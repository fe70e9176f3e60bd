"""Whether a refinement shows a particle, or what noise gives as well."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.refine3d.model import Model, Setting, agreed_frequency
from icestream.algorithms.refine3d.search import make_reference
from icestream.algorithms.scoring import PolarParticles, search_poses_2d

_LEAST_RISE = 1.2
"""How many times finer than the initial volume was trusted a map must be."""
_LEAST_SIGNIFICANCE = 5.0


@dataclass(frozen=True)
class Verdict:
    """``kind`` is ``map`` or ``none``, ``reason`` says why it is none.

    ``gain`` is by how much the particles of a half set fit the volume of the other half better than its twin with phases at
    random, the mean over particles in nats, and ``significance`` that in standard errors.
    """

    kind: Literal["map", "none"]
    reason: str | None
    gain: float
    significance: float


def judge_refinement(particles: PolarParticles, model: Model, *, setting: Setting, seed: int) -> Verdict:
    """Judge a refinement by particles of both half sets, each against the volume of the half set that it is not in.

    Noise that was aligned to an initial volume agrees with it, in both halves, but not beyond the resolution to which that volume
    was trusted; and noise that a volume has not seen fits it no better than its twin.

    Parameters
    ----------
    particles
        Some hundred, on the grid of the setting.
    model
        At the end of the refinement.
    setting
        Of the refinement.
    seed
        For the phases of the twin.
    """
    gains = []
    for half in (0, 1):
        others = particles.take(np.flatnonzero(particles.half_set != half))
        twin = randomise_phases_3d(model.references[half], setting.ball, seed=seed + half)
        scores = []
        for volume in (model.references[half], twin):
            references = model.references.copy()
            references[half] = volume
            reference = make_reference(replace(model, references=references), half, setting=setting, everywhere=True)
            scores.append(search_poses_2d(others, reference.bank, most=1).gain)
        gains.append(scores[0] - scores[1])
    gain = np.concatenate(gains).astype(np.float64)
    mean = float(gain.mean())
    significance = mean / max(float(gain.std()) / np.sqrt(len(gain)), 1e-9)
    agreed = agreed_frequency(model.correlation)
    if agreed < _LEAST_RISE * setting.start_ring:
        box_ang = setting.grid.box_px * setting.pixel_size_ang
        reached = f"{box_ang / agreed:.0f} Å" if agreed > 0 else "nowhere"
        reason = f"its halves agree to {reached}, hardly beyond the {box_ang / setting.start_ring:.0f} Å that were given"
        return Verdict("none", reason, mean, significance)
    if significance < _LEAST_SIGNIFICANCE:
        reason = "particles that it has not seen fit it no better than its twin with phases at random"
        return Verdict("none", reason, mean, significance)
    return Verdict("map", None, mean, significance)


def randomise_phases_3d(volume: NDArray[np.float32], ball: NDArray[np.float32], *, seed: int) -> NDArray[np.float32]:
    """Return a volume with the same power at each frequency and phases of noise, masked, of the same total power."""
    noise = np.random.default_rng(seed).normal(size=volume.shape)
    phases = fft.rfftn(noise)
    spectrum = np.abs(fft.rfftn(volume)) * phases / np.maximum(np.abs(phases), 1e-20)
    twin = fft.irfftn(spectrum, s=volume.shape) * ball
    return np.asarray(twin * np.sqrt((volume**2).sum() / max((twin**2).sum(), 1e-30)), dtype=np.float32)
