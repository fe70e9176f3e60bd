"""The picker that learns in the session."""

import numpy as np
import pytest
from picking_truth import f1_score
from scipy import ndimage

from icestream.algorithms.trained_picker import trial
from icestream.algorithms.trained_picker.features import Prepared, compute_features_2d, prepare_micrograph_2d
from icestream.algorithms.trained_picker.filters import MAX_ORDER, learn_filters, sample_polar
from icestream.algorithms.trained_picker.model import Labelled, train_model
from icestream.algorithms.trained_picker.trial import ModelPicks, Trial, calibrate, learn_elsewhere, pick_with_model_2d, try_model

DIAMETER_ANG, PIXEL_ANG, SIDE = 120.0, 5.0, 260
DISTANCE_PX = 14.0


def draw_micrograph(n_particles, *, seed, noise=0.8):
    """Dark rods in any turn among light and dark discs that are no particles; image, rods, discs."""
    rng = np.random.default_rng(seed)
    image = noise * rng.normal(size=(SIDE, SIDE))
    y, x = np.indices((30, 30)) - 15
    places: list[np.ndarray] = []
    while len(places) < 2 * n_particles:
        centre = rng.integers(18, SIDE - 18, 2)
        if all(np.hypot(*(centre - other)) > 24 for other in places):
            places.append(centre)
    for index, centre in enumerate(places):
        angle = rng.uniform(0, np.pi)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        rod = (np.abs(along) < 11) & (np.abs(across) < 4)
        shape = rod if index < n_particles else np.hypot(y, x) < 5
        image[tuple(slice(c - 15, c + 15) for c in centre)] -= ndimage.gaussian_filter(shape.astype(float), 1.0)
    at = np.array(places, dtype=float)
    return image.astype(np.float32), at[:n_particles], at[n_particles:]


def flat_contrast(height, width, _):
    return np.full((height, width // 2 + 1), -1.0, dtype=np.float32)


def prepare(image) -> Prepared:
    return prepare_micrograph_2d(image, pixel_size_ang=PIXEL_ANG, diameter_ang=DIAMETER_ANG, transfer=flat_contrast)


def label(seed, *, labelled=0.8, refused=0.5) -> tuple[Labelled, np.ndarray]:
    """A micrograph of which most rods are known, and some discs as none."""
    image, rods, discs = draw_micrograph(22, seed=seed)
    rng = np.random.default_rng(seed)
    prepared = prepare(image)
    known, nobody = rods[rng.random(len(rods)) < labelled] / prepared.scale, np.empty((0, 2))
    return Labelled(prepared, known, discs[rng.random(len(discs)) < refused] / prepared.scale, nobody), rods / prepared.scale


@pytest.fixture(scope="module")
def trained():
    training = [label(seed)[0] for seed in range(6)]
    model = train_model(training, min_distance_px=DISTANCE_PX, seed=1)
    return calibrate(model, [label(seed)[0] for seed in (10, 11)], min_distance_px=DISTANCE_PX, seed=1)


def test_it_tells_particles_from_what_it_has_not_seen_labelled(trained) -> None:
    scores = []
    for seed in (20, 21, 22):
        one, rods = label(seed)
        found = pick_with_model_2d(one.prepared, trained, min_distance_px=DISTANCE_PX, seed=1)
        scores.append(f1_score(found.yx_px, rods, radius_px=7))
        assert ((found.probability >= 0) & (found.probability <= 1)).all()
        assert (np.diff(found.score) <= 0).all()
    assert np.mean(scores) > 0.8


def test_noise_has_next_to_no_picks(trained) -> None:
    count = 0
    for seed in range(4):
        prepared = prepare(np.random.default_rng(seed).normal(size=(SIDE, SIDE)).astype(np.float32))
        count += len(pick_with_model_2d(prepared, trained, min_distance_px=DISTANCE_PX, seed=seed).score)
    assert count <= 1


def test_training_repeats_and_changes_nothing_that_it_is_given() -> None:
    training = [label(seed)[0] for seed in range(2)]
    before = [one.prepared.image.copy() for one in training]
    one, other = (train_model(training, min_distance_px=DISTANCE_PX, seed=1) for _ in range(2))
    assert np.array_equal(one.weights, other.weights)
    assert all(np.array_equal(a, b.prepared.image) for a, b in zip(before, training, strict=True))
    with pytest.raises(ValueError, match="at least 10 are needed"):
        few = Labelled(training[0].prepared, training[0].good_yx_px[:3], training[0].bad_yx_px, np.empty((0, 2)))
        train_model([few], min_distance_px=DISTANCE_PX, seed=1)


def test_features_do_not_depend_on_a_quarter_turn(trained) -> None:
    image = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(121, 121)), 1.0).astype(np.float32)
    plain = compute_features_2d(image, trained.filters, diameter_px=24.0)[:, 60, 60]
    turned = compute_features_2d(np.rot90(image).copy(), trained.filters, diameter_px=24.0)[:, 60, 60]
    assert np.allclose(plain, turned, atol=0.05 * np.abs(plain).max())


def test_rings_hold_the_orders_of_an_angular_wave() -> None:
    y, x = np.indices((61, 61)) - 30
    wave = np.cos(3 * np.arctan2(y, x)).astype(np.float32)
    series = sample_polar(wave, np.array([[30.0, 30.0]]), radius_px=14.0)
    assert series.shape == (1, MAX_ORDER + 1, 14)
    power = np.abs(series[0, :, 8:]).mean(axis=1)
    assert power.argmax() == 3
    assert power[3] == pytest.approx(0.5, rel=0.05)


def test_filters_look_along_what_varies_more_in_particles() -> None:
    rng = np.random.default_rng(1)
    background = rng.normal(size=(400, 3, 10)) + 1j * rng.normal(size=(400, 3, 10))
    particles = background.copy()
    particles[:, 2, 4] *= 5
    filters = learn_filters(particles, background)
    assert filters.order.tolist() == [2]
    assert np.sum(filters.real**2 + filters.imaginary**2) == pytest.approx(1.0, rel=1e-3)


def test_a_trial_tells_a_good_model_from_a_spoilt_one(trained) -> None:
    apart = [label(seed)[0] for seed in (30, 31, 32)]
    spoilt = type(trained)(
        trained.filters, trained.mean, trained.deviation, -trained.weights, trained.threshold, trained.slope, trained.offset
    )
    sure = {"least_gain": 0.0, "confidence": 0.95}
    good = try_model(trained, spoilt, apart, min_distance_px=DISTANCE_PX, seed=1)
    assert good.f1 > good.rival_f1 + 0.3
    assert good.judge(**sure) == "better"
    alone = try_model(spoilt, None, apart, min_distance_px=DISTANCE_PX, seed=1)
    assert alone.rival_f1 > alone.f1 + 0.3
    assert alone.judge(**sure) == "not better"
    few = try_model(trained, spoilt, apart[:2], min_distance_px=DISTANCE_PX, seed=1)
    assert few.error is None and few.judge(**sure) == "undecided"


def test_a_model_is_not_better_than_itself(trained) -> None:
    apart = [label(seed)[0] for seed in (30, 31, 32)]
    same = try_model(trained, trained, apart, min_distance_px=DISTANCE_PX, seed=1)
    assert (same.f1, same.error) == (same.rival_f1, 0.0)
    assert same.judge(least_gain=0.0, confidence=0.95) == "not better"


@pytest.mark.parametrize(
    ("gain", "error", "verdict"),
    [(0.05, 0.01, "better"), (0.05, 0.04, "undecided"), (-0.05, 0.04, "undecided"), (-0.05, 0.01, "not better")],
)
def test_what_is_not_sure_is_undecided(gain: float, error: float, verdict: str) -> None:
    assert Trial(0.8 + gain, 0.8, error, 4).judge(least_gain=0.0, confidence=0.95) == verdict
    assert Trial(0.8 + gain, 0.8, None, 2).judge(least_gain=0.0, confidence=0.95) == "undecided"


def test_the_error_is_that_of_the_mean_difference_where_all_micrographs_are_alike(trained, monkeypatch) -> None:
    gains = np.array([0.02, 0.05, 0.01, 0.04, 0.06])
    rows = [(np.array([[100.0, 50.0 + 100 * gain], [100.0, 50.0]]), 100.0) for gain in gains]
    answers = iter(rows)
    monkeypatch.setattr(trial, "_count_both", lambda *_args, **_given: next(answers))
    found = try_model(trained, trained, [label(30)[0]] * 5, min_distance_px=DISTANCE_PX, seed=1)
    assert found.f1 - found.rival_f1 == pytest.approx(gains.mean())
    assert found.error == pytest.approx(gains.std(ddof=1) / 5**0.5)


@pytest.mark.parametrize(("missed", "false"), [(0.0, 1.0), (0.4, 0.0), (0.4, 1.0)])
def test_picks_elsewhere_are_particles_as_often_as_particles_are_missed(missed: float, false: float) -> None:
    rng = np.random.default_rng(3)
    particles, dirt = rng.normal(3, 1, 2000), rng.normal(0, 1, round(2000 * false))
    places = np.stack([np.arange(len(particles) + len(dirt)) * 100.0, np.zeros(len(particles) + len(dirt))], axis=1)
    known = rng.random(len(particles)) >= missed
    nobody, score = np.empty((0, 2)), np.concatenate([particles, dirt])
    one = Labelled(prepare(np.zeros((SIDE, SIDE), np.float32)), places[: len(particles)][known], nobody, nobody)
    found = ModelPicks(places, score, np.ones(len(score)), np.ones(len(score)))
    share = learn_elsewhere([found], [one]).at(score)
    new = np.concatenate([~known, np.ones(len(dirt), bool)])
    assert share[new].sum() == pytest.approx(np.count_nonzero(~known), abs=100)
    assert share[new & (score < 1)].mean() < 0.2 if false else share[new].mean() > 0.9
