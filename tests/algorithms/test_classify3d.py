"""3D classification with known poses: two conformations are told apart, and nuisances are not taken for classes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.classify3d import (
    N_FOLDS,
    PosedParticles,
    Setting,
    classify_particles_3d,
    correlate_classes_3d,
    evidence,
    fill_empty,
    fold_of,
    make_passes,
    prepare_centred,
    random_shares,
    share_by_likelihood,
    sharpness_of,
    sum_up,
)
from icestream.algorithms.classify3d.model import make_volumes, sum_classes
from icestream.algorithms.classify3d.search import score_classes
from icestream.algorithms.scoring.particles import half_sets_of
from icestream.algorithms.scoring.polar import PolarGrid
from icestream.algorithms.volumes import project_volume_2d, random_rotations, transform_volume

BOX, N = 32, 300
SETTING = Setting(PolarGrid(BOX, 12, 64), 2, 11.0, 3.0, 5)


def _blobs(places: list[tuple[float, float, float]]) -> NDArray[np.float32]:
    grid = np.arange(BOX) - BOX // 2
    z, y, x = grid[:, None, None], grid[None, :, None], grid[None, None, :]
    whole = sum(np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / 5.0) for a, b, c in places)
    return np.asarray(whole, np.float32)


BODY = [(0.0, 0.0, 0.0), (4.0, 2.0, -3.0), (-4.0, 3.0, 1.0), (-1.0, -5.0, 3.0), (2.0, -2.0, 5.0)]
CONFORMATIONS = np.stack([_blobs([*BODY, (7.0, 0.0, 0.0)]), _blobs([*BODY, (0.0, 7.0, 0.0)])])


def _particles(volumes: NDArray[np.float32], *, seed: int, noise: float) -> tuple[PosedParticles, NDArray[np.int64]]:
    """Return particles of both, 60:40, without a CTF, and which is which; ``volumes`` ``(2, box, box, box)``."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(N) > 0.6).astype(np.int64)
    rotations = random_rotations(N, generator=rng)
    shift = rng.normal(scale=1.0, size=(N, 2))
    images = np.empty((N, BOX, BOX), np.float32)
    for k, volume in enumerate(volumes):
        mine = truth == k
        images[mine] = project_volume_2d(transform_volume(volume), rotations[mine], shift_yx_px=shift[mine])
    images /= images.std()
    images += noise * rng.normal(size=images.shape).astype(np.float32)
    images /= images.std()
    fold = fold_of(np.full(N, b"a"), np.arange(N) + N * seed)
    ctf = np.ones((N, SETTING.grid.n_rings, SETTING.grid.half), np.float32)
    polar = prepare_centred(images, ctf, shift_yx_px=shift, setting=SETTING, half_set=(fold % 2).astype(np.int8))
    contrast = np.ones((N, BOX, BOX // 2 + 1), np.float32)
    return PosedParticles(images, contrast, polar, rotations, shift, fold), truth


@pytest.fixture(scope="module")
def mixture() -> tuple[PosedParticles, NDArray[np.int64]]:
    return _particles(CONFORMATIONS, seed=0, noise=2.0)


def test_two_conformations_are_told_apart(mixture: tuple[PosedParticles, NDArray[np.int64]]) -> None:
    particles, truth = mixture
    found = classify_particles_3d(particles, setting=SETTING, passes=8, seed=3)
    same = float(np.mean(found.class_id == truth))
    assert max(same, 1 - same) > 0.95
    order = [0, 1] if same > 0.5 else [1, 0]
    assert found.share.mean(axis=0)[order[0]] == pytest.approx(0.6, abs=0.06)
    for k, own in enumerate(order):
        mine, other = (np.corrcoef(found.volumes.volumes[own].ravel(), CONFORMATIONS[j].ravel())[0, 1] for j in (k, 1 - k))
        assert mine > other + 0.02
    assert found.share.sum(axis=1) == pytest.approx(np.ones(N))


def test_a_particle_is_never_compared_with_itself(mixture: tuple[PosedParticles, NDArray[np.int64]]) -> None:
    particles, _ = mixture
    share = random_shares(N, 2, seed=1)
    given: dict[str, Any] = {"rotations": particles.rotations, "shift_yx_px": particles.shift_yx_px, "fold": particles.fold}
    sums = sum_classes(particles.images, particles.contrast, share=share, setting=SETTING, **given)
    spoilt = particles.images.copy()
    spoilt[particles.fold == 2] *= -3.0
    other = sum_classes(spoilt, particles.contrast, share=share, setting=SETTING, **given)
    for k in range(2):
        assert (sums[1][k].signal == other[1][k].signal).all()
        assert not np.allclose(sums[2][k].signal, other[2][k].signal)


def test_contrast_and_turns_of_the_whole_make_no_classes(mixture: tuple[PosedParticles, NDArray[np.int64]]) -> None:
    particles, _ = mixture
    rng = np.random.default_rng(2)
    strong = rng.random(N) < 0.5
    share = np.where(strong[:, None], [0.9, 0.1], [0.1, 0.9])
    scaled = particles.images * np.where(strong, 1.3, 0.7).astype(np.float32)[:, None, None]
    sums = sum_classes(
        scaled, particles.contrast, rotations=particles.rotations, shift_yx_px=particles.shift_yx_px, share=share,
        fold=particles.fold, setting=SETTING,
    )  # fmt: skip
    volumes = make_volumes(sums, setting=SETTING).volumes
    apart = np.linalg.norm(volumes[0] - volumes[1]) / np.linalg.norm(volumes.mean(axis=0))
    raw = np.linalg.norm(0.6 * volumes.mean(axis=0) * 0.8) / np.linalg.norm(volumes.mean(axis=0))
    assert apart < 0.5 * raw


def test_scores_are_those_of_the_right_volume(mixture: tuple[PosedParticles, NDArray[np.int64]]) -> None:
    particles, truth = mixture
    scale = np.float32(3.0 / np.linalg.norm(CONFORMATIONS[0]))
    noise = particles.polar.power.mean(axis=0).astype(np.float32)
    scores = [
        score_classes(
            particles.polar, np.repeat((CONFORMATIONS * scale)[None], N_FOLDS, axis=0), rotations=particles.rotations,
            fold=particles.fold, ring=10, noise_power=noise, setting=SETTING, loose=loose,
        )
        for loose in (False, True)
    ]  # fmt: skip
    for score in scores:
        assert np.mean(score.argmax(axis=1) == truth) > 0.95
    assert (scores[1] >= scores[0] - 0.2).mean() > 0.95  # looking around a pose finds no less, but for the price of a shift


def test_shares_are_probabilities_and_sizes_count() -> None:
    before = np.tile([0.9, 0.1], (50, 1))
    shares = share_by_likelihood(np.zeros((50, 2)), before)
    assert shares == pytest.approx(before)
    strong = np.column_stack([np.zeros(50), np.full(50, 100.0)])
    assert share_by_likelihood(strong, before)[:, 1].min() > 0.999


def test_folds_keep_half_sets() -> None:
    names, pids = np.repeat([b"a", b"b"], 500), np.tile(np.arange(500), 2)
    fold = fold_of(names, pids)
    assert (fold % 2 == half_sets_of(names, pids)).all()
    order = np.random.default_rng(0).permutation(1000)[:300]
    assert (fold_of(names[order], pids[order]) == fold[order]).all()
    assert np.bincount(fold, minlength=N_FOLDS).min() > 180


def test_evidence_is_more_for_the_right_classes(mixture: tuple[PosedParticles, NDArray[np.int64]]) -> None:
    particles, truth = mixture
    right = np.where(truth[:, None] == [0, 1], 0.9, 0.1)
    found = [sum_up(particles, share, SETTING) for share in (right, random_shares(N, 2, seed=4), np.full((N, 2), 0.5))]
    gains = [evidence(particles, one, np.array([0.6, 0.4]), setting=SETTING) for one in found]
    assert gains[0] > 0.3
    assert gains[0] > gains[1] + 0.3
    assert gains[1] < 0.02  # classes that differ by noise explain nothing
    assert gains[2] == pytest.approx(0.0, abs=1e-4)


def test_the_better_start_goes_on(mixture: tuple[PosedParticles, NDArray[np.int64]]) -> None:
    particles, truth = mixture
    told: list[tuple[float, str]] = []
    found = classify_particles_3d(
        particles, setting=SETTING, passes=8, starts=4, seed=11, report=lambda fraction, message: told.append((fraction, message))
    )
    same = float(np.mean(found.class_id == truth))
    assert max(same, 1 - same) > 0.95
    assert len(told) == 4 * 3 + 2 * 3 + 3  # two rounds of starts, and what is left of the passes
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and fractions[-1] < 1


def test_a_class_without_particles_begins_again(mixture: tuple[PosedParticles, NDArray[np.int64]]) -> None:
    share = np.tile([0.7, 0.3, 0.0], (1000, 1))
    filled = fill_empty(share, seed=1)
    assert filled.sum(axis=1) == pytest.approx(np.ones(1000))
    assert filled[:, 2].sum() == pytest.approx(350, abs=40)
    assert (filled[:, 1] == share[:, 1]).all()
    assert (share[:, 2] == 0).all()
    assert (fill_empty(filled, seed=2) == filled).all()
    particles, truth = mixture
    three = replace(SETTING, n_classes=3)
    begun = np.column_stack([np.where(truth == 0, 0.95, 0.05), np.where(truth == 0, 0.05, 0.95), np.zeros(N)])
    found = make_passes(particles, begun, setting=three, soft=0, sharp=4)
    assert np.bincount(found.class_id, minlength=3).min() > 5


def test_classes_are_compared_by_what_tells_them_from_their_mean() -> None:
    rng = np.random.default_rng(1)
    mean, parts = 50 * rng.normal(size=(8, 8, 8)), rng.normal(size=(3, 8, 8, 8))
    old = (mean + parts).astype(np.float32)
    new = (1.2 * mean + parts[[2, 0, 1]] + 0.1 * rng.normal(size=parts.shape)).astype(np.float32)
    likeness = correlate_classes_3d(old, new)
    assert likeness.argmax(axis=1).tolist() == [1, 2, 0]
    assert likeness.max(axis=1).min() > 0.9
    assert np.sort(likeness, axis=1)[:, :2].max() < 0.3
    assert (likeness >= 0).all()


def test_likelihoods_of_classes_that_hardly_differ_are_sharpened() -> None:
    rng = np.random.default_rng(2)
    faint = 0.1 * rng.normal(size=(200, 2))
    assert sharpness_of(faint) > 10
    assert sharpness_of(100 * faint) == 1
    given = share_by_likelihood(faint, np.full((1, 2), 0.5), sharpness=3.0)
    assert given == pytest.approx(share_by_likelihood(3.0 * faint, np.full((1, 2), 0.5), sharpness=1.0))
