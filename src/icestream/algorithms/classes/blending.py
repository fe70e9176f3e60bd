"""Sums of a classification that follow a stream without bias, and classes that survive bad moments.

The sums stand at full-data mass: each particle seen so far is in them once. New particles are added; particles that are looked at
again replace what they, or their like, put in before (incremental EM, Neal & Hinton 1998, in Learning in Graphical Models, 355;
trailing sums with a step larger than the share that was looked at, Cappé & Moulines 2009, J. R. Stat. Soc. B 71, 593).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from icestream.algorithms.classify2d import Averages, Model, Sums

LEAST_SUPPORT = 2.0
"""A class with fewer particles keeps its last average."""
_MOST_GAIN = 2.0


def scale_sums(sums: Sums, factor: NDArray[np.float64], *, of_power: float) -> Sums:
    """Multiply the sums of each class by its ``factor`` ``(k,)``, and the summed power by ``of_power``."""
    each = factor.astype(np.float32)[None, :, None, None]  # (1, k, 1, 1)
    return replace(
        sums,
        signal=(sums.signal * each).astype(sums.signal.dtype),
        ctf_squared=(sums.ctf_squared * each).astype(sums.ctf_squared.dtype),
        weight=sums.weight * factor,
        power=sums.power * of_power,
    )


def add_sums(first: Sums, second: Sums) -> Sums:
    """Return the sums of both."""
    return first.decayed(1.0, second, 1.0)


def blend_sums(
    old: Sums,
    replayed: Sums,
    *,
    n_before: ArrayLike,
    n_replayed: ArrayLike,
    forgetting: float,
) -> Sums:
    """Replace in the sums what particles that were looked at again put in before.

    Of class ``j`` the fraction ``f = n_replayed / n_before`` was looked at. ``u = f ** forgetting`` of its old sums goes, and the
    new ones come in ``u / f`` times, at most twice: more than once, for the old ones were made with worse averages. If all
    particles were looked at, nothing old is left; if none, nothing changes.

    Parameters
    ----------
    old, replayed
        Sums of all particles before, and of those that were looked at again.
    n_before, n_replayed
        ``(k,)``, how many of all particles, and of those that were looked at again, were in each class before.
    forgetting
        0.5 to 1; 1 remembers all equally.
    """
    before, again = np.maximum(np.asarray(n_before, float), 0), np.asarray(n_replayed, float)
    fraction = np.clip(np.divide(again, before, out=np.zeros_like(before), where=before > 0), 0.0, 1.0)
    gain = np.clip(np.divide(fraction**forgetting, fraction, out=np.ones_like(fraction), where=fraction > 0), 1.0, _MOST_GAIN)
    whole = float(np.clip(again.sum() / max(before.sum(), 1.0), 0.0, 1.0))
    kept = scale_sums(old, 1.0 - fraction * gain, of_power=1.0 - whole)
    return add_sums(kept, scale_sums(replayed, gain, of_power=1.0))


def keep_supported(old: Averages, new: Averages, weight: ArrayLike, *, least: float = LEAST_SUPPORT) -> Averages:
    """Return the new averages, but the old ones of classes whose ``weight`` ``(k,)``, in particles, is too small for one."""
    lost = np.flatnonzero(np.asarray(weight) < least)
    if not lost.size:
        return new
    images, halves, correlation = new.images.copy(), new.halves.copy(), new.correlation.copy()
    images[lost], halves[:, lost], correlation[lost] = old.images[lost], old.halves[:, lost], old.correlation[lost]
    return replace(new, images=images, halves=halves, correlation=correlation)


def reorder_classes(model: Model, order: NDArray[np.int64]) -> Model:
    """Return a model whose class ``i`` is class ``order[i]`` of the given one."""
    averages, sums = model.averages, model.sums
    return replace(
        model,
        averages=replace(
            averages,
            images=averages.images[order],
            halves=averages.halves[:, order],
            correlation=averages.correlation[order],
        ),
        sums=replace(sums, signal=sums.signal[:, order], ctf_squared=sums.ctf_squared[:, order], weight=sums.weight[:, order]),
    )
