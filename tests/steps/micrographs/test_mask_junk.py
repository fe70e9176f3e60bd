"""Masks as files, and what they remove from picks and particles, with the reason of each."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from icestream.errors import ItemError
from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.io.image import read_image
from icestream.io.particles import removed_particles_table
from icestream.io.picks import make_picks, removed_table, table_of_picks
from icestream.io.picture import encode_picture
from icestream.records import JUNK_BITS, Acquisition, JunkMask, Micrograph, Particles, Picks
from icestream.steps.micrographs.mask import mask_junk
from icestream.steps.picking.mask_filter import MaskFilterParams, mask_particles, mask_picks
from icestream.testing.context import StepBench

SIDE_PX, PIXEL_ANG = 512, 2.0
MICROGRAPH = Micrograph(
    image="session:weighted.mrc", unweighted="session:plain.mrc", height_px=SIDE_PX, width_px=SIDE_PX, bin=2.0
)
ACQUISITION = Acquisition(pixel_size_ang=PIXEL_ANG / 2)
Y, X = np.indices((SIDE_PX, SIDE_PX))
PLACES = np.array([[100.0, 120.0], [100.0, 200.0], [300.0, 300.0], [420.0, 60.0], [3.0, 400.0]])
"""In the dirt, 30 px from it, clean, in the crystal, at the border."""


@pytest.fixture
def bench(tmp_path: Path) -> StepBench:
    return StepBench(tmp_path)


def _mask(bench: StepBench) -> JunkMask:
    """A mask of labels of 4 px: a disc of dirt, a square of crystal."""
    y, x = np.indices((SIDE_PX // 4, SIDE_PX // 4)) * 4 + 1.5
    labels = (np.hypot(y - 100, x - 120) < 50) * JUNK_BITS["dirt"] + ((y > 380) & (x < 120)) * JUNK_BITS["crystalline_ice"]
    encode_picture(bench.path("session:labels.png"), labels.astype(np.uint8))
    shares = {"carbon_share": 0.0, "crystalline_ice_share": 0.06, "dirt_share": 0.03, "aggregate_share": 0.0, "any_share": 0.09}
    return JunkMask.model_validate(
        {"labels": "session:labels.png", "box_px": 4, "bin": 8.0, "height_px": SIDE_PX, "width_px": SIDE_PX, **shares}
    )


def _picks() -> Picks:
    return make_picks(table_of_picks(PLACES, np.arange(5.0)), diameter_ang=130.0)


def _reasons(picks: Picks) -> dict[int, str]:
    table = removed_table(picks)
    return {int(pid): picks.removed[code].reason for pid, code in zip(table["pid"], table["reason"], strict=True)}


def test_a_ball_is_masked_and_drawn_from_the_unweighted_sum(bench: StepBench) -> None:
    rng = np.random.default_rng(1)
    clean = rng.poisson(np.full((SIDE_PX, SIDE_PX), 100.0))
    ball = np.hypot(Y - 200, X - 150) < 60
    mrcfile.write(bench.path("session:weighted.mrc"), clean.astype(np.float32))
    mrcfile.write(bench.path("session:plain.mrc"), rng.poisson(100.0 * (1 - 0.3 * ball)).astype(np.float32))
    found = mask_junk(MICROGRAPH, ACQUISITION, bench)
    assert found.dirt_share == pytest.approx(ball.mean(), rel=0.15)
    assert found.any_share == found.dirt_share
    labels = read_image(bench.path(found.labels))
    assert labels.shape == (SIDE_PX // found.box_px, SIDE_PX // found.box_px)
    middle = labels[200 // found.box_px, 150 // found.box_px], labels[-1 - 200 // found.box_px, 150 // found.box_px]
    assert middle == (JUNK_BITS["dirt"], 0)
    assert found.bin == 2.0 * found.box_px
    assert found.crystalline_ice_share is None
    assert (found.note or "").startswith("pixels of 2 Å do not show")
    assert found.picture is not None
    assert JunkMask.restore(found.model_dump_json(), version=1, block=None) == found


def test_crystals_are_looked_for_where_the_pixels_are_fine(bench: StepBench) -> None:
    rng = np.random.default_rng(2)
    lattice = (Y < 256) * 0.3 * np.cos(2 * np.pi / 3.67 * (0.8 * X + 0.6 * Y))
    mrcfile.write(bench.path("session:plain.mrc"), rng.poisson(100.0 * (1 + lattice)).astype(np.float32))
    found = mask_junk(MICROGRAPH, Acquisition(pixel_size_ang=0.5), bench)
    assert found.crystalline_ice_share == pytest.approx(0.5, abs=0.06)
    assert found.note is None


def test_an_image_that_shows_nothing_is_an_error_of_its_item(bench: StepBench) -> None:
    mrcfile.write(bench.path("session:plain.mrc"), np.ones((SIDE_PX, SIDE_PX), np.float32))
    with pytest.raises(ItemError, match="cannot be searched for junk: all pixels have the value 1"):
        mask_junk(MICROGRAPH, ACQUISITION, bench)


def test_picks_on_junk_and_close_to_it_are_removed_with_their_reasons(bench: StepBench) -> None:
    kept = mask_picks(_picks(), _mask(bench), MaskFilterParams(), ACQUISITION, bench)
    assert _reasons(kept) == {0: "on dirt", 1: "on dirt", 3: "in crystalline ice"}  # 60 Å beside the ball, with a radius of 65 Å
    assert from_block(kept.block)["pid"].tolist() == [2, 4]
    assert [(one.reason, one.count) for one in kept.removed] == [
        ("on carbon", 0), ("in crystalline ice", 1), ("on dirt", 2), ("in an aggregate", 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "removed"),
    [
        ({"dirt_ang": 50.0}, [0, 3]),
        ({"dirt_ang": 0.0}, [0, 3]),
        ({"ignore": ["crystalline_ice"]}, [0, 1]),
        ({"ignore": ["crystalline_ice", "dirt"]}, []),
        ({"border_ang": 20.0}, [0, 1, 3, 4]),
        ({"crystalline_ice_ang": 600.0, "dirt_ang": 0.0}, [0, 1, 2, 3]),
    ],
)
def test_each_kind_has_a_distance_and_may_be_ignored(bench: StepBench, params: dict[str, object], removed: list[int]) -> None:
    kept = mask_picks(_picks(), _mask(bench), MaskFilterParams.model_validate(params), ACQUISITION, bench)
    assert sorted(_reasons(kept)) == removed


def test_particles_are_removed_as_picks_are_and_keep_their_images(bench: StepBench) -> None:
    table = np.zeros(5, dtype=dtype_of(Particles.block_columns))
    table["pid"], table["y_px"], table["x_px"], table["slice"] = np.arange(5), PLACES[:, 0], PLACES[:, 1], np.arange(5)
    particles = Particles(
        stack="session:stack.mrcs", count=5, box_px=64, bin=2.0, inverted=True, phase_flipped=False, diameter_ang=130.0,
        micrograph="session:weighted.mrc", block=to_block(table),
    )  # fmt: skip
    mask = _mask(bench)
    kept = mask_particles(particles, mask, MaskFilterParams(), ACQUISITION, bench)
    assert from_block(kept.block)["slice"].tolist() == [2, 4]
    assert removed_particles_table(kept)["pid"].tolist() == [0, 1, 3]
    assert kept.stack == particles.stack
    unknown = mask_particles(particles.model_copy(update={"diameter_ang": None}), mask, MaskFilterParams(), ACQUISITION, bench)
    assert removed_particles_table(unknown)["pid"].tolist() == [0, 3]
