"""Which symmetry two half maps suggest: candidates by the self-rotation function, each judged shell by shell, with a null."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.map_quality.point_groups import Matrices, PlacedGroup, place_groups, refine_group, score_operations
from icestream.algorithms.map_quality.self_rotation import MOST_L, CrossHarmonics, cross_harmonics, fold_scores, scan_axes
from icestream.algorithms.map_quality.shells import (
    Curve,
    Map,
    correlate_shells,
    distance_from_centre,
    invert_3d,
    mean_shells,
    randomise_phases_3d,
    transform_3d,
    weight_shells,
)
from icestream.algorithms.volumes import resize_volume_3d, turn_volume_3d
from icestream.algorithms.volumes.fsc import sum_shells

_WORTH_A_LOOK = 0.5
_MOST_JUDGED = 10
_BEHIND = 0.06
_MOST_TESTED = 12
_LEAST_Z = 3.0


@dataclass(frozen=True)
class GroupScore:
    """How well the halves bear out one group.

    Attributes
    ----------
    agreement
        Shell correlation of one half with the other after an operation of the group, over that after none, mean over operations
        and signal shells: 1 for a symmetry.
    least_agreement
        The same of the worst operation.
    detail_agreement
        The same over the finer half of the shells.
    z
        Self-rotation score of its main axis above that of phase-randomised halves, in standard deviations of theirs.
    """

    group: PlacedGroup
    agreement: float
    least_agreement: float
    detail_agreement: float
    z: float
    accepted: bool


@dataclass(frozen=True)
class SuggestedSymmetry:
    """The largest group that is borne out, C1 where there is none, and what else was found.

    Attributes
    ----------
    subgroups
        Names of accepted groups beside the one suggested.
    centre_zyx
        Where its axes meet, px.
    scores
        Of groups that came into question, the best first.
    """

    name: str
    group: PlacedGroup | None
    subgroups: tuple[str, ...]
    centre_zyx: NDArray[np.float64]
    scores: tuple[GroupScore, ...]


@dataclass(frozen=True)
class _Prepared:
    """Halves cut to their signal, in a small box."""

    halves: tuple[NDArray[np.float32], NDArray[np.float32]]
    fsc: Curve
    first: int
    last: int
    radius_px: float
    step_px: float
    scale: float


def suggest_symmetry(
    half_1: Map,
    half_2: Map,
    mask: NDArray[np.float32],
    fsc: Curve,
    *,
    most_order: int = 12,
    least_agreement: float = 0.9,
    n_null: int = 12,
    seed: int = 0,
) -> SuggestedSymmetry:
    """Suggest the symmetry of a map that was reconstructed without it, or with a smaller one.

    Parameters
    ----------
    half_1, half_2
        ``(b, b, b)``, not masked.
    mask, fsc
        Of the particle; corrected correlation by shell.
    most_order
        Highest order of an axis that is looked for.
    least_agreement
        What an accepted group must reach over all signal shells, its worst operation included.
    n_null
        Pairs of phase-randomised halves.
    """
    ready = _prepare(half_1, half_2, mask, fsc)
    centre = _centre_of_mass(ready, mask)
    if ready.last - ready.first < 2:
        return SuggestedSymmetry("C1", None, (), centre / ready.scale, ())
    cross, centre, placed = _locate(ready, centre, most_order=most_order)
    null = _null_scores(ready, centre, most_order=most_order, n_null=n_null, seed=seed)
    ranked = sorted(placed, key=lambda group: -float(score_operations(cross, group.operations()).mean()))
    worth = [
        group for group in ranked[:_MOST_JUDGED] if float(score_operations(cross, group.operations()).mean()) >= _WORTH_A_LOOK
    ]
    judged = [_judge(ready, centre, group, null=null, least=least_agreement) for group in worth]
    best = max((min(score.agreement, 1.0) for score, _ in judged if score.accepted), default=1.0)
    judged = [(replace(one, accepted=one.accepted and one.agreement >= best - _BEHIND), at) for one, at in judged]
    judged.sort(key=lambda pair: (-pair[0].accepted, -len(pair[0].group.operations()), -pair[0].agreement))
    scores = tuple(score for score, _ in judged)
    if not scores or not scores[0].accepted:
        return SuggestedSymmetry("C1", None, (), centre / ready.scale, scores)
    others = tuple(sorted(one.group.name for one in scores[1:] if one.accepted))
    return SuggestedSymmetry(scores[0].group.name, scores[0].group, others, judged[0][1] / ready.scale, scores)


def _prepare(half_1: Map, half_2: Map, mask: NDArray[np.float32], fsc: Curve) -> _Prepared:
    """Flatten the amplitudes of the signal shells, weight them by what is signal, and crop the box in Fourier space."""
    box_px = half_1.shape[0]
    weights = np.asarray(mask > 0.5)
    middle = box_px // 2
    reach = float(np.percentile(np.linalg.norm(np.argwhere(weights) - middle, axis=1), 99)) if weights.any() else middle - 1.0
    radius = min(reach, middle - 1.0)
    soft = mask * np.clip((radius + 3 - distance_from_centre(box_px)) / 3, 0, 1)
    spectra = [transform_3d(half * soft) for half in (half_1, half_2)]
    first = max(2, round(0.75 * box_px / radius))
    good = np.flatnonzero(fsc[first:] < 0.3)
    last = min(first + int(good[0]) - 1 if good.size else len(fsc) - 1, int(MOST_L * 1.3 * box_px / (2 * np.pi * radius)))
    last = max(min(last, box_px // 2 - 1), first)
    power = mean_shells(0.5 * (np.abs(spectra[0]) ** 2 + np.abs(spectra[1]) ** 2), box_px=box_px)
    inside = (np.arange(len(fsc)) >= first) & (np.arange(len(fsc)) <= last)
    band = np.where(inside, np.sqrt(np.clip(fsc, 0, 1) / np.maximum(power, 1e-30)), 0.0)
    small = min(box_px, 2 * int(np.ceil(1.6 * last)) + 8)
    small += small % 2
    halves = tuple(
        resize_volume_3d(invert_3d(weight_shells(one, band, box_px=box_px), box_px=box_px), new_size=small) for one in spectra
    )
    scale = small / box_px
    return _Prepared((halves[0], halves[1]), fsc, first, last, radius * scale, max(0.5 * small / last, 1.0), scale)


def _centre_of_mass(ready: _Prepared, mask: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the middle of the mask, in pixels of the small box."""
    small = ready.halves[0].shape[0]
    middle = np.array(ndimage.center_of_mass(mask)) - mask.shape[0] // 2
    return np.asarray(middle * ready.scale + small // 2)


def _locate(
    ready: _Prepared, centre: NDArray[np.float64], *, most_order: int
) -> tuple[CrossHarmonics, NDArray[np.float64], list[PlacedGroup]]:
    """Find candidates, move the centre to where the best of them meets, and find them again."""
    for _ in range(3):
        cross = cross_harmonics(*ready.halves, centre_zyx=centre, radius_px=ready.radius_px, step_px=ready.step_px)
        placed = place_groups(cross, most_order=most_order, worth=_WORTH_A_LOOK)
        if not placed:
            break
        best = max(placed, key=lambda group: float(score_operations(cross, group.operations()).mean()))
        moved = _find_centre(ready, centre, best.operations()[1:7])
        shift = np.linalg.norm(moved - centre)
        if shift < 0.05 or shift > 0.25 * ready.radius_px:
            break
        centre = moved
    return cross, centre, placed


def turn_about(volume: Map, rotation: Matrices, centre_zyx: NDArray[np.float64]) -> NDArray[np.float32]:
    """Turn the content of a map about a point; ``rotation`` acts on x y z."""
    from_middle = centre_zyx - volume.shape[0] // 2
    z, y, x = from_middle - rotation[::-1, ::-1] @ from_middle
    return turn_volume_3d(volume, rotation, shift_zyx_px=(float(z), float(y), float(x)))


def _find_centre(ready: _Prepared, centre: NDArray[np.float64], operations: Matrices) -> NDArray[np.float64]:
    """Return the centre about which turned halves lie on one another, by least squares over some operations."""
    box_px = ready.halves[0].shape[0]
    other = np.conj(transform_3d(ready.halves[1]))
    rows, shifts = [], []
    for operation in operations:
        product = transform_3d(turn_about(ready.halves[0], operation, centre)) * other
        peak = _peak(np.fft.fftshift(invert_3d(product, box_px=box_px)))
        rows.append(np.eye(3) - operation[::-1, ::-1])
        shifts.append(-(peak - box_px // 2))
    moved = np.linalg.lstsq(np.concatenate(rows), np.concatenate(shifts), rcond=0.1)[0]
    return np.asarray(centre + moved)


def _peak(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the place of the highest value, by parabolas."""
    at = np.array(np.unravel_index(int(np.argmax(values)), values.shape))
    place = at.astype(np.float64)
    for axis in range(3):
        low, high = at.copy(), at.copy()
        low[axis] = (at[axis] - 1) % values.shape[axis]
        high[axis] = (at[axis] + 1) % values.shape[axis]
        a, b, c = (float(values[tuple(one)]) for one in (low, at, high))
        if a - 2 * b + c < 0:
            place[axis] += 0.5 * (a - c) / (a - 2 * b + c)
    return place


def _null_scores(
    ready: _Prepared, centre: NDArray[np.float64], *, most_order: int, n_null: int, seed: int
) -> dict[int, tuple[float, float]]:
    """Return mean and standard deviation of the best score of each order, of halves with the same random phases."""
    box_px = ready.halves[0].shape[0]
    best = np.zeros((n_null, most_order + 1))
    spectra = [transform_3d(half) for half in ready.halves]
    relative = spectra[1] / np.where(np.abs(spectra[0]) > 0, spectra[0], 1.0)
    for index, row in enumerate(best):
        one = randomise_phases_3d(spectra[0], from_shell=0, box_px=box_px, rng=np.random.default_rng((seed, index)))
        halves = [invert_3d(spectrum, box_px=box_px) for spectrum in (one, one * relative)]
        cross = cross_harmonics(*halves, centre_zyx=centre, radius_px=ready.radius_px, step_px=ready.step_px)
        spectrum_of_turns = scan_axes(cross)[1]
        for order in range(2, most_order + 1):
            row[order] = float(fold_scores(spectrum_of_turns, order).max())
    return {order: (float(best[:, order].mean()), float(best[:, order].std(ddof=1))) for order in range(2, most_order + 1)}


def _judge(
    ready: _Prepared, centre: NDArray[np.float64], group: PlacedGroup, *, null: dict[int, tuple[float, float]], least: float
) -> tuple[GroupScore, NDArray[np.float64]]:
    """Place a group and its centre, and compare shell correlations after its operations with that after none."""
    for _ in range(2):
        cross = cross_harmonics(*ready.halves, centre_zyx=centre, radius_px=ready.radius_px, step_px=ready.step_px)
        group = refine_group(cross, group)
        operations = group.operations()[1:]
        moved = _find_centre(ready, centre, operations[:6])
        centre = moved if np.linalg.norm(moved - centre) <= 0.25 * ready.radius_px else centre
    if len(operations) > _MOST_TESTED:
        operations = operations[np.linspace(0, len(operations) - 1, _MOST_TESTED).astype(int)]
    box_px = ready.halves[0].shape[0]
    other = transform_3d(ready.halves[1])
    counts = sum_shells(np.ones(other.shape), size=box_px)
    whole = correlate_shells(transform_3d(ready.halves[0]), other, box_px=box_px)
    band = np.arange(ready.first, min(ready.last, len(whole) - 1) + 1)
    fine = band[len(band) // 2 :]
    curves = np.stack(
        [correlate_shells(transform_3d(turn_about(ready.halves[0], one, centre)), other, box_px=box_px) for one in operations]
    )
    ratio = (curves[:, band] @ counts[band]) / float(whole[band] @ counts[band])
    detail = float((curves[:, fine] @ counts[fine]).mean() / float(whole[fine] @ counts[fine]))
    mean, spread = null[group.orders[0]]
    alone = score_operations(cross, PlacedGroup(f"C{group.orders[0]}", group.main_axis).operations())
    z = (float(alone.mean()) - mean) / max(spread, 1e-6)
    accepted = min(float(ratio.min()) + 0.1, float(ratio.mean()), detail + 0.1) >= least and z >= _LEAST_Z
    return GroupScore(group, float(ratio.mean()), float(ratio.min()), detail, z, accepted), centre
