"""Passes over particles on disk, what a version of the first kind left, and halves that share no average."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.classes.identity import Renamed
from icestream.algorithms.classify2d.em import Model, anneal, assign, seed_averages
from icestream.algorithms.scoring.particles import PolarParticles
from icestream.errors import ItemError
from icestream.io.image import write_mrc
from icestream.steps.classify2d import segments
from icestream.steps.classify2d.params import Classify2DParams, plan_for
from icestream.steps.classify2d.passes import (
    Scale,
    half_averages,
    independent_correlation,
    judge,
    look,
    look_at_segments,
)
from icestream.steps.classify2d.segments import TABLE, Prepared, read_table, sample_polar, write_segment
from icestream.steps.classify2d.state import Classify2DState, count_members, save_model
from icestream.steps.classify2d.streaming import Classify2D
from icestream.testing.context import StepBench

BOX, PIXEL_ANG = 32, 4.0
PARAMS = Classify2DParams(
    n_classes=2, limit_ang=14.0, psi_step_deg=12.0, max_shift_ang=4.0, first_iterations=6, anneal_iterations=4
)
SETTING = plan_for(PARAMS, box_px=BOX, pixel_size_ang=PIXEL_ANG)
SCALE = Scale(SETTING, BOX * PIXEL_ANG, BOX / SETTING.grid.box_px)


def shapes() -> NDArray[np.float64]:
    grid = np.arange(BOX) - BOX // 2
    spots = [[(-6, 0), (6, 1), (2, 6)], [(0, -7), (0, 0), (0, 7)]]
    return np.stack([sum(np.exp(-((grid[:, None] - a) ** 2 + (grid[None, :] - b) ** 2) / 8) for a, b in one) for one in spots])


def prepared(count: int, *, signal: float = 1.5, seed: int = 0) -> Prepared:
    """Return particles of two shapes in noise, as they are kept."""
    rng = np.random.default_rng(seed)
    images = shapes()[np.arange(count) % 2] * signal + rng.normal(size=(count, BOX, BOX))
    table = np.zeros(count, dtype=TABLE)
    table["pid"], table["half"], table["sign"], table["class_id"] = np.arange(count), np.arange(count) // 2 % 2, 1, -1
    table["micrograph"] = b"m"
    table["defocus_u_ang"] = np.nan
    return Prepared(segments.shrink_2d(images, size=SETTING.grid.box_px).astype(np.float16), table)


def polar(count: int, **given: Any) -> PolarParticles:
    return sample_polar(prepared(count, **given), setting=SETTING, box_ang=BOX * PIXEL_ANG)


def model(particles: PolarParticles, *, iterations: int = 8) -> Model:
    start = seed_averages(particles, setting=SETTING, seed=1)
    return anneal(particles, start, setting=SETTING, first_ring=SETTING.start_ring, iterations=iterations)


def test_one_look_gives_the_assignment_and_the_sums(tmp_path: Path) -> None:
    particles = polar(40)
    known = model(particles)
    sums, found = look(particles, known.averages, setting=SETTING)
    wanted = assign(particles, known, setting=SETTING)
    np.testing.assert_array_equal(found.class_id, wanted.class_id)
    np.testing.assert_allclose(found.psi_deg, wanted.psi_deg)
    np.testing.assert_allclose(found.shift_yx_px, wanted.shift_yx_px)
    assert sums.weight.sum() == pytest.approx(40, rel=1e-4)


def test_particles_come_in_pieces_and_the_result_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = StepBench(tmp_path)
    known = model(polar(40)).averages
    parts = [write_segment(prepared(23, seed=s), suffix=str(s), ctx=bench) for s in (1, 2)]
    whole, tables = look_at_segments(parts, known, scale=SCALE, version=7, ctx=bench)
    sizes: list[int] = []
    real = segments.pieces

    def small(*given: Any, **more: Any) -> Any:
        for rows, piece in real(*given, **more, most=5):
            sizes.append(len(piece))
            yield rows, piece

    monkeypatch.setattr("icestream.steps.classify2d.passes.pieces", small)
    again, others = look_at_segments(parts, known, scale=SCALE, version=7, ctx=bench)
    assert max(sizes) == 5
    assert sum(sizes) == 46
    np.testing.assert_allclose(again.signal, whole.signal, atol=1e-2)
    for one, other in zip(tables, others, strict=True):
        np.testing.assert_array_equal(one["class_id"], other["class_id"])
        assert set(other["version"].tolist()) == {7}
    assert (read_table(parts[0], bench)["version"] == 0).all()  # what was published is not changed
    with pytest.raises(ItemError, match="at least one"):
        look_at_segments([], known, scale=SCALE, version=1, ctx=bench)


def test_halves_of_an_average_carry_the_particles_of_one_half_set() -> None:
    particles = polar(60)
    known = model(particles)
    first, second = half_averages(known.averages)
    assert first.images.shape == known.averages.images.shape
    assert not np.allclose(first.images, second.images)
    both = (first.images + second.images).ravel()
    assert np.corrcoef(both, known.averages.images.ravel())[0, 1] > 0.95


def test_better_classes_are_judged_better_by_the_other_half() -> None:
    particles = polar(80)
    good = model(particles)
    worse = model(polar(80, signal=0.0, seed=4))
    noise = good.averages.noise_power
    assert judge(good, particles, noise, setting=SETTING) > judge(worse, particles, noise, setting=SETTING)


def test_halves_that_share_no_average_do_not_agree_on_noise() -> None:
    """Noise that was aligned to one average agrees between half sets; aligned to averages of their own it does not."""
    particles = polar(80, signal=0.0, seed=5)
    found = model(particles, iterations=12)
    shared = found.averages.correlation[:, :8].mean()
    own = independent_correlation(found, particles, setting=SETTING, passes=4)[:, :8].mean()
    assert own < shared - 0.1


def test_halves_that_share_no_average_agree_on_particles_and_more_with_more_of_them() -> None:
    particles = polar(120)
    found = model(particles)
    own = independent_correlation(found, particles, setting=SETTING)
    assert own[:, :4].min() > 0.9
    more = independent_correlation(replace(found, n_seen=10 * found.n_seen), particles, setting=SETTING)
    assert (more >= own - 1e-9).all()


def of_version_one(bench: StepBench) -> Classify2DState:
    """A state that names exposures that it held, and counts those that it had dropped."""
    images = shapes()[np.arange(12) % 2] * 1.5 + np.random.default_rng(8).normal(size=(12, BOX, BOX))
    write_mrc(bench.path("session:old.mrcs"), images.astype(np.float32), pixel_size_ang=PIXEL_ANG)
    optics = np.zeros(12, dtype=[("pid", "<i4"), *((name, "<f8") for name in segments.OPTICS)])
    optics["pid"], optics["defocus_u_ang"] = np.arange(12), np.nan
    np.save(bench.path("session:old.npy"), optics)
    held = {
        "id": "e" * 32, "name": "old", "stack": "session:old.mrcs", "table": "session:old.npy", "count": 12, "ordinal": 0,
        "inverted": True, "phase_flipped": False, "voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1, "counts": [6, 6],
    }  # fmt: skip
    stored = {
        "seed": 3, "model": save_model(model(polar(40)), bench), "n_particles": 30, "n_exposures": 3, "next_anneal": 80,
        "box_px": BOX, "bin": 1.0, "pixel_size_ang": PIXEL_ANG, "held": [held], "settled": [10, 8],
    }  # fmt: skip
    return Classify2DState.restore(json.dumps(stored), version=1, block=None)


def test_what_version_one_had_dropped_follows_its_class_to_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def turn_round(*_: Any, **__: Any) -> Renamed:
        return Renamed(np.array([1, 0]), (2, 1), (), 3)  # the first class is gone; its particles are at the second place now

    monkeypatch.setattr("icestream.steps.classify2d.engine.rename_classes", turn_round)
    bench = StepBench(tmp_path, version=5, closing=True)
    update = Classify2D().add(of_version_one(bench), [], [], acquisition=[], params=PARAMS, ctx=bench)
    assert (update.state.ids, update.state.settled) == ([2, 1], [0, 18])


def test_a_classification_of_version_one_goes_on(tmp_path: Path) -> None:
    bench = StepBench(tmp_path, version=5)
    state = of_version_one(bench)
    assert (state.ids, state.next_id, count_members(state)) == ([0, 1], 2, [16, 14])
    bench.closing = True
    update = Classify2D().add(state, [], [], acquisition=[], params=PARAMS, ctx=bench)
    assert update.state.held == []
    assert [segment.count for segment in update.state.segments] == [12]
    assert sum(count_members(update.state)) == 30
    averages = Classify2D().emit(update.state, PARAMS, bench)
    assert (averages.count, [info.id for info in averages.classes]) == (30, [0, 1])
