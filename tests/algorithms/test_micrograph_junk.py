"""Masks of carbon, crystals, dirt and aggregates are where the truth says, and nowhere on clean micrographs."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.micrograph.bragg import find_bragg_spots_2d, outline_crystals_2d
from icestream.algorithms.micrograph.junk import JunkMap, choose_label_px, distance_to_mask_px, map_junk_2d
from icestream.algorithms.micrograph.rim import find_rim_2d
from icestream.io.image import read_image
from icestream.microscope.junk import label_junk_2d
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import render_micrograph
from icestream.microscope.truth import ExposureTruth
from icestream.records import JUNK_BITS, JunkClass

PIXEL_ANG = 1.6
SIDE_PX = 1024
CONTAMINATED = Path(__file__).parents[3] / "shared" / "data" / "contaminated_micrograph"
SETTINGS = {
    "n_movies": 1, "gain": False, "height_px": SIDE_PX, "width_px": SIDE_PX, "pixel_size_ang": PIXEL_ANG, "n_frames": 2,
    "dose_per_frame_e_per_ang2": 20.0, "drift_px": (0, 0), "local_motion_px": 0, "phantom_diameter_ang": 140.0,
    "n_particles": 70, "spacing_diameters": 0.8, "defocus_um": (1.2, 1.6),
}  # fmt: skip


@cache
def _found(kind: JunkClass | None, seed: int = 3) -> tuple[JunkMap, ExposureTruth]:
    junk = {} if kind is None else {kind: 0.2}
    image, truth = render_micrograph(SimulationSettings.model_validate({**SETTINGS, "seed": seed, "junk": junk}), 0)
    return map_junk_2d(image, pixel_size_ang=PIXEL_ANG, dose_e_per_ang2=40.0), truth


def _overlap(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    return float((found & true).sum() / (found | true).sum())


@pytest.mark.parametrize(("kind", "least"), [("carbon", 0.97), ("crystalline_ice", 0.75), ("dirt", 0.85), ("aggregate", 0.5)])
def test_each_kind_is_found_where_it_is(kind: JunkClass, least: float) -> None:
    found, truth = _found(kind)
    true = label_junk_2d(truth, kind, box_px=found.box_px)
    assert _overlap(found.mask(kind), true) > least
    others = np.zeros_like(true)
    for other in set(JUNK_BITS) - {kind}:
        others |= found.mask(other)
    assert (others & ~found.mask(kind)).mean() < 0.02


@pytest.mark.parametrize("seed", [3, 4])
def test_a_clean_micrograph_has_no_mask(seed: int) -> None:
    found, truth = _found(None, seed)
    assert len(truth.particles) > 50
    assert (found.labels > 0).mean() < 0.002


def test_scale_and_offset_of_the_grey_values_do_not_matter() -> None:
    image, _ = render_micrograph(SimulationSettings.model_validate({**SETTINGS, "seed": 5, "junk": {"dirt": 0.2}}), 0)
    kept = image.copy()
    found = map_junk_2d(image, pixel_size_ang=PIXEL_ANG)
    scaled = map_junk_2d(40 - 3 * (-image), pixel_size_ang=PIXEL_ANG)
    assert np.array_equal(image, kept)
    assert (found.labels != scaled.labels).mean() < 1e-3
    assert found.mask("dirt").mean() > 0.1


def test_coarse_pixels_have_no_crystals_to_seek() -> None:
    image, _ = render_micrograph(SimulationSettings.model_validate({**SETTINGS, "seed": 5}), 0)
    coarse = image.reshape(SIDE_PX // 2, 2, SIDE_PX // 2, 2).mean((1, 3))
    found = map_junk_2d(coarse, pixel_size_ang=2 * PIXEL_ANG)
    assert not found.crystals_sought
    assert not found.mask("crystalline_ice").any()


@pytest.mark.parametrize(
    ("shape", "pixel_ang", "box"),
    [((4096, 4096), 1.0, 8), ((4096, 4096), 0.5, 16), ((5760, 4092), 1.06, 9), ((512, 512), 8.0, 1)],
)
def test_labels_are_8_to_20_angstroms(shape: tuple[int, int], pixel_ang: float, box: int) -> None:
    assert choose_label_px(shape, pixel_size_ang=pixel_ang) == box


def test_the_outline_of_a_crystal_is_sharper_than_its_tiles() -> None:
    rng = np.random.default_rng(1)
    y, x = np.indices((1024, 1024))
    inside = np.hypot(y - 400, x - 600) < 200
    lattice = inside * np.cos(2 * np.pi / 3.67 * (0.8 * x + 0.6 * y))
    image = rng.normal(size=(1024, 1024)) + 0.25 * lattice
    spots = find_bragg_spots_2d(image, pixel_size_ang=1.0, only_ice=True)
    assert spots is not None
    outline = np.kron(outline_crystals_2d(image, spots), np.ones((32, 32), bool))
    tiles = np.kron(spots.crystalline, np.ones((256, 256), bool))
    assert _overlap(outline, inside) > 0.85 > _overlap(tiles, inside)


def test_what_a_compressed_picture_makes_is_no_ice() -> None:
    rng = np.random.default_rng(2)
    y, x = np.indices((1024, 1024))
    blocks = np.cos(2 * np.pi * (0.375 * x + 0.25 * y)) + np.cos(2 * np.pi * (0.485 * x + 0.012 * y))
    image = rng.normal(size=(1024, 1024)) + 0.3 * blocks
    everything = find_bragg_spots_2d(image, pixel_size_ang=1.75)
    only_ice = find_bragg_spots_2d(image, pixel_size_ang=1.75, only_ice=True)
    assert everything is not None
    assert only_ice is not None
    assert (everything.share, only_ice.share) == (1.0, 0.0)


@pytest.mark.parametrize("with_ball", [False, True])
def test_a_rim_is_found_though_a_ball_lies_on_it(with_ball: bool) -> None:
    rng = np.random.default_rng(3)
    y, x = np.indices((400, 400))
    film = np.hypot(y - 420, x - 30) > 330
    ball = (np.hypot(y - 150, x - 235) < 45) & with_ball
    image = 100 - 12 * film - 40 * ball + rng.normal(0, 6, (400, 400))
    found = find_rim_2d(image, blur_px=4.0)
    assert found is not None
    assert _overlap(found.mask, film) > 0.97
    assert found.step == pytest.approx(12, abs=2)


def test_neither_noise_nor_a_round_ball_is_a_rim() -> None:
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 6, (400, 400))
    y, x = np.indices((400, 400))
    assert find_rim_2d(noise, blur_px=4.0) is None
    assert find_rim_2d(noise - 30 * (np.hypot(y - 200, x - 200) < 110), blur_px=4.0) is None


def test_distances_are_to_the_border_of_the_mask() -> None:
    mask = np.zeros((20, 30), bool)
    mask[5:10, 10:20] = True
    yx = np.array([[30.0, 60.0], [30.0, 31.5], [79.5, 60.0], [500.0, 60.0]])
    distance = distance_to_mask_px(mask, yx, box_px=4)
    assert distance[0] == 0
    assert distance[1] == pytest.approx(8, abs=2)
    assert distance[2] == pytest.approx(40, abs=2)
    assert distance[3] == pytest.approx(40, abs=4)
    assert np.isinf(distance_to_mask_px(~np.ones((20, 30), bool), yx, box_px=4)).all()


@pytest.mark.skipif(not CONTAMINATED.is_dir(), reason="the contaminated micrograph is not on this machine")
def test_a_real_ball_of_ice_is_masked() -> None:
    image = read_image(CONTAMINATED / "Ucsf_stack_1142_DW.mrc")
    found = map_junk_2d(image, pixel_size_ang=4.0)
    box = found.box_px
    height, width = found.labels.shape
    reference = read_image(CONTAMINATED / "mask" / "Ucsf_stack_1142_DW.mrc")[: height * box, : width * box]
    true = reference.reshape(height, box, width, box).mean((1, 3)) > 0.5
    masked = found.labels > 0
    assert (masked & true).sum() / true.sum() > 0.9
    assert (masked & ~ndimage.binary_dilation(true, iterations=4)).mean() < 0.03
