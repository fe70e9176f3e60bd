"""Scenes other than particles in clean ice are what their truth says, and change nothing else."""

import numpy as np
import pytest
from pydantic import ValidationError

from icestream.algorithms.spectra.spectrum import power_spectrum
from icestream.microscope.draw import draw_exposure
from icestream.microscope.junk import distance_to_junk_px, label_junk_2d
from icestream.microscope.scenes import HEXAGONAL_ICE_ANG, draw_cover
from icestream.microscope.settings import Scene, SimulationSettings
from icestream.microscope.simulate import render_micrograph
from icestream.microscope.truth import ExposureTruth
from icestream.records import JunkClass

PIXEL_ANG = 1.5
SMALL = {
    "n_movies": 2, "height_px": 320, "width_px": 384, "n_frames": 2, "pixel_size_ang": PIXEL_ANG, "n_particles": 4, "gain": False,
    "drift_px": (0, 0), "local_motion_px": 0, "dose_per_frame_e_per_ang2": 100.0, "phantom_diameter_ang": 80.0, "seed": 5,
}  # fmt: skip


def _settings(scene: Scene | None, **changes: object) -> SimulationSettings:
    scenes = {} if scene is None else {0: scene}
    return SimulationSettings.model_validate({**SMALL, "scenes": scenes, **changes})


def _truth(settings: SimulationSettings) -> ExposureTruth:
    return draw_exposure(settings, 0, fault=None, diameter_ang=80.0)


def test_an_empty_hole_is_the_beam_and_its_shot_noise() -> None:
    image, truth = render_micrograph(_settings(Scene.NO_ICE), 0)
    expected = 2 * 100.0 * PIXEL_ANG**2
    assert (truth.scene, truth.particles) == (Scene.NO_ICE, ())
    assert image.mean() == pytest.approx(expected, rel=0.003)
    assert image.var() == pytest.approx(expected, rel=0.02)


def test_bare_ice_has_rings_and_no_particle() -> None:
    image, truth = render_micrograph(_settings(Scene.BARE_ICE), 0)
    with_particles, other = render_micrograph(_settings(None), 0)
    assert (truth.particles, len(other.particles)) == ((), 4)
    assert image.mean() * 1.05 < image.var() < with_particles.var()


def test_crystals_have_spots_at_the_spacings_of_hexagonal_ice() -> None:
    spectra = [
        power_spectrum(render_micrograph(_settings(scene, b_factor_ang2=0.0), 0)[0], tile_px=128)
        for scene in (Scene.BARE_ICE, Scene.CRYSTALLINE_ICE)
    ]
    ky, kx = np.fft.fftfreq(128)[:, None] / PIXEL_ANG, np.fft.rfftfreq(128)[None] / PIXEL_ANG
    radius = np.hypot(ky, kx)
    for spacing_ang in HEXAGONAL_ICE_ANG:
        ring = np.abs(radius - 1 / spacing_ang) < 0.004
        bare, crystal = (spectrum[ring].max() for spectrum in spectra)
        assert crystal > 20 * bare, spacing_ang
    between = np.abs(radius - 0.36) < 0.01  # 2.8 Å, where there is no reflection
    assert spectra[1][between].max() < 3 * spectra[0][between].max()


def test_coarse_pixels_have_no_spots() -> None:
    settings = _settings(Scene.CRYSTALLINE_ICE, pixel_size_ang=4.0)
    cover = draw_cover(_truth(settings), (128, 128), generator=np.random.default_rng(1))
    assert cover is not None
    assert not cover.phase_rad.any()
    assert cover.transmission.std() > 0.02


@pytest.mark.parametrize(
    ("scene", "least", "most", "lost"),
    [(Scene.CONTAMINATION, 0.14, 0.6, (0.05, 0.4)), (Scene.CARBON_EDGE, 0.59, 0.86, (0.07, 0.14))],
)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_lumps_and_film_cover_a_share_and_take_their_part_of_the_beam(
    scene: Scene, least: float, most: float, lost: tuple[float, float], seed: int
) -> None:
    cover = draw_cover(_truth(_settings(scene)), (320, 384), generator=np.random.default_rng(seed))
    assert cover is not None
    assert least <= cover.mask.mean() <= most
    assert lost[0] < 1 - float(cover.transmission[cover.mask].mean()) < lost[1]
    np.testing.assert_array_equal(cover.transmission[~cover.mask], 1)
    np.testing.assert_array_equal(cover.phase_rad[~cover.mask], 0)


@pytest.mark.parametrize("scene", [Scene.CONTAMINATION, Scene.CARBON_EDGE])
def test_what_is_drawn_is_what_is_counted(scene: Scene) -> None:
    clean, _ = render_micrograph(_settings(None), 0)
    covered, truth = render_micrograph(_settings(scene), 0)
    taken = 1 - covered.mean() / clean.mean()
    assert 0.02 < taken < 0.25
    assert len(truth.particles) == 4
    assert covered.std() > 1.2 * clean.std()


def test_a_scene_changes_no_other_exposure() -> None:
    plain, scene = _settings(None), _settings(Scene.CONTAMINATION)
    ours, truth = render_micrograph(plain, 1)
    theirs, other = render_micrograph(scene, 1)
    np.testing.assert_array_equal(ours, theirs)
    assert truth == other
    with_scene = _truth(scene)
    assert with_scene.model_copy(update={"scene": None}) == _truth(plain)
    assert ExposureTruth.model_validate_json(with_scene.model_dump_json()) == with_scene


def test_scenes_belong_to_movies_that_exist() -> None:
    with pytest.raises(ValidationError, match=r"scenes: movies \[7\] do not exist; allowed: 0 … 1"):
        SimulationSettings.model_validate({**SMALL, "scenes": {7: Scene.NO_ICE}})


def _junk(kind: str, share: float) -> SimulationSettings:
    return _settings(None, junk={kind: share}, height_px=512, width_px=512, n_particles=30, spacing_diameters=0.7)


@pytest.mark.parametrize("kind", ["carbon", "crystalline_ice", "dirt", "aggregate"])
def test_junk_covers_its_share_and_no_particle_lies_in_it(kind: JunkClass) -> None:
    settings = _junk(kind, 0.2)
    truth, clean = _truth(settings), _truth(settings.model_copy(update={"junk": {}}))
    assert label_junk_2d(truth, kind, box_px=4).mean() == pytest.approx(0.2, abs=0.03)
    yx = truth.positions_yx_px
    assert 0 < len(yx) < len(clean.particles)
    assert set(truth.particles) < set(clean.particles)
    touching = 0 if kind == "crystalline_ice" else 40.0 / PIXEL_ANG
    assert distance_to_junk_px(truth.junk, yx[:, 0], yx[:, 1]).min() > touching
    assert ExposureTruth.model_validate_json(truth.model_dump_json()) == truth


@pytest.mark.parametrize(("kind", "darker"), [("carbon", 0.05), ("dirt", 0.05), ("aggregate", 0.002)])
def test_junk_is_darker_where_its_truth_is(kind: JunkClass, darker: float) -> None:
    image, truth = render_micrograph(_junk(kind, 0.2), 0)
    inside = np.repeat(np.repeat(label_junk_2d(truth, kind, box_px=4), 4, axis=0), 4, axis=1)
    assert image[inside].mean() < (1 - darker) * image[~inside].mean()


def test_a_session_without_junk_is_as_it_always_was() -> None:
    plain, truth = render_micrograph(_settings(None), 0)
    same, _ = render_micrograph(_settings(None, junk={"dirt": 0.0}), 0)
    assert truth.junk == ()
    assert np.array_equal(plain, same)
