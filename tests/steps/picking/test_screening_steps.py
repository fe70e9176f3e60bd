"""Unusual picks and empty particles are set aside by their steps, with reasons; the others keep numbers and images."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy import ndimage

from icestream.errors import ItemError
from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.io.image import write_mrc
from icestream.io.particles import removed_particles_table
from icestream.io.picks import make_picks, removed_table, table_of_picks
from icestream.records import Acquisition, Micrograph, Particles, Picks
from icestream.steps.particles.screen import ScreenParticlesParams, screen_particles
from icestream.steps.picking.outliers import ProfileOutliersParams, remove_profile_outliers
from icestream.testing.context import StepBench

PIXEL_ANG = 3.0
ACQUISITION = Acquisition(pixel_size_ang=PIXEL_ANG)
MICROGRAPH = Micrograph(image="session:mic.mrc", height_px=800, width_px=800, bin=1.0)


@pytest.fixture
def bench(tmp_path: Path) -> StepBench:
    return StepBench(tmp_path)


def _picked(bench: StepBench) -> Picks:
    """Dark discs on a grid, all picked, and four picks on an edge of carbon."""
    rng = np.random.default_rng(1)
    yx = np.stack(np.meshgrid(np.arange(40, 700, 60), np.arange(40, 640, 60), indexing="ij"), -1).reshape(-1, 2)
    image = np.zeros((800, 800))
    image[yx[:, 0], yx[:, 1]] = -1
    disc = (np.hypot(*(np.indices((33, 33)) - 16)) < 16).astype(float)
    image = ndimage.convolve(image, disc, mode="constant") + rng.normal(0, 1, image.shape)
    image[:, 720:] -= 12
    mrcfile.write(bench.path("session:mic.mrc"), image.astype(np.float32))
    edge = np.array([[100.0, 718.0], [250.0, 722.0], [400.0, 719.0], [600.0, 721.0]])
    places = np.concatenate([yx, edge])
    return make_picks(table_of_picks(places, np.linspace(1, 0, len(places))), diameter_ang=32 * PIXEL_ANG)


def test_picks_on_an_edge_are_unusual(bench: StepBench) -> None:
    picks = _picked(bench)
    kept = remove_profile_outliers(MICROGRAPH, picks, ProfileOutliersParams(), ACQUISITION, bench)
    removed = removed_table(kept)["pid"].tolist()
    assert set(removed) >= set(range(picks.count - 4, picks.count))
    assert len(removed) <= 6
    assert kept.removed[0].reason == "unusual radial profile"


def test_few_picks_are_all_kept_and_small_ones_refused(bench: StepBench) -> None:
    picks = _picked(bench)
    kept = remove_profile_outliers(MICROGRAPH, picks, ProfileOutliersParams(min_picks=500), ACQUISITION, bench)
    assert (kept.count, kept.n_removed) == (picks.count, 0)
    small = picks.model_copy(update={"diameter_ang": 20.0})
    with pytest.raises(ItemError, match=r"a particle of 20 Å is 6.7 px wide"):
        remove_profile_outliers(MICROGRAPH, small, ProfileOutliersParams(), ACQUISITION, bench)


def _particles(bench: StepBench) -> Particles:
    """Forty lumpy particles, then ten empty images, and one with half of it dark."""
    rng = np.random.default_rng(2)
    y, x = np.indices((64, 64)) - 32
    lumps = np.stack([ndimage.gaussian_filter(rng.normal(size=(64, 64)), 3.0) for _ in range(51)])
    body = (np.hypot(y, x) < 20) * lumps / lumps.std()
    body[40:50] = 0
    images = rng.normal(size=(51, 64, 64)) + 0.7 * body
    images[50, :, :32] -= 9
    write_mrc(bench.path("session:stack.mrcs"), images.astype(np.float32), pixel_size_ang=PIXEL_ANG)
    table = np.zeros(51, dtype=dtype_of(Particles.block_columns))
    table["pid"], table["slice"] = 100 + np.arange(51), np.arange(51)
    return Particles(
        stack="session:stack.mrcs", count=51, box_px=64, bin=1.0, inverted=True, phase_flipped=False,
        diameter_ang=40 * PIXEL_ANG, micrograph="session:mic.mrc", block=to_block(table),
    )  # fmt: skip


def test_empty_particles_and_outliers_are_set_aside(bench: StepBench) -> None:
    kept = screen_particles(_particles(bench), ScreenParticlesParams(), ACQUISITION, bench)
    removed = removed_particles_table(kept)
    reasons = {int(pid): kept.removed[code].reason for pid, code in zip(removed["pid"], removed["reason"], strict=True)}
    assert reasons[150] == "unlike the others"
    assert {pid for pid, reason in reasons.items() if reason == "empty"} <= set(range(140, 150))
    assert sum(reason == "empty" for reason in reasons.values()) >= 6
    assert from_block(kept.block)["slice"][:40].tolist() == list(range(40))
    assert kept.stack == "session:stack.mrcs"


@pytest.mark.parametrize(
    ("params", "reason"), [({"min_variance": 1.15}, "low variance"), ({"worst_percent": 18.0}, "least signal")]
)
def test_other_rules_find_the_empty_ones_too(bench: StepBench, params: dict[str, float], reason: str) -> None:
    only = ScreenParticlesParams.model_validate({"min_signal": None, "max_zscore": None, **params})
    kept = screen_particles(_particles(bench), only, ACQUISITION, bench)
    assert [one.reason for one in kept.removed] == [reason]
    assert len(set(range(140, 150)) & set(removed_particles_table(kept)["pid"].tolist())) >= 8


def test_no_particle_is_no_error_and_one_must_fit_its_box(bench: StepBench) -> None:
    particles = _particles(bench)
    nothing = particles.model_copy(update={"count": 0, "stack": None, "block": to_block(from_block(particles.block)[:0])})
    assert screen_particles(nothing, ScreenParticlesParams(worst_percent=10), ACQUISITION, bench).count == 0
    with pytest.raises(ItemError, match=r"cannot be screened: a particle of 63.3 px in a box of 64 px"):
        screen_particles(particles, ScreenParticlesParams(diameter_ang=190.0), ACQUISITION, bench)
