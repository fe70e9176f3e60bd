"""Frames of refinements: the turn and the move between two sets of poses are found, and refining again stays in the frame."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.refine3d import (
    Frame,
    Last,
    Portion,
    PoseTable,
    Progress,
    bring_back,
    find_frame,
    frame_since,
    into_frame,
    iterate,
    refine_again,
)
from icestream.algorithms.refine3d.model import Model, Setting
from icestream.algorithms.scoring import PolarGrid
from icestream.algorithms.volumes import (
    project_volume_2d,
    random_rotations,
    rotation_distance_deg,
    rotations_about,
    symmetry_group,
    transform_volume,
)

BOX, COUNT = 24, 120
SETTING = Setting(PolarGrid(BOX, 9, 72), 6.0, mask_radius_px=7.0, edge_px=3.0, max_shift_px=2.0, start_ring=3)


def _turned(vector_deg: tuple[float, float, float]) -> NDArray[np.float64]:
    return rotations_about(np.deg2rad([vector_deg]))[0]


@pytest.mark.parametrize(
    ("symmetry", "turn", "move"),
    [
        ("C1", (2.0, -1.0, 0.5), (0.4, -0.3, 0.2)),
        ("C1", (70.0, 50.0, -100.0), (1.0, 2.0, -1.0)),
        ("C4", (0.0, 0.0, 20.0), (0.0, 0.0, 0.6)),
        ("D2", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    ],
)
def test_a_frame_is_found_from_poses_with_errors(
    symmetry: str, turn: tuple[float, float, float], move: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(1)
    group = symmetry_group(symmetry)
    new, shift = random_rotations(400, generator=rng), rng.normal(size=(400, 2))
    truth = Frame(_turned(turn), np.array(move), 0.0)
    old, old_shift = into_frame(new, shift, truth)
    old = rotations_about(np.deg2rad(rng.normal(scale=0.5, size=(400, 3)))) @ old @ group[rng.integers(0, len(group), 400)]
    old[:60] = random_rotations(60, generator=rng)  # poses that were wrong once
    found = find_frame(new, shift, before=old, shift_before_yx_px=old_shift + rng.normal(scale=0.2, size=(400, 2)), group=group)
    assert rotation_distance_deg(found.rotation[None], truth.rotation[None], group=group)[0] < 0.3
    assert found.move_xyz_px == pytest.approx(truth.move_xyz_px, abs=0.06)
    assert found.spread_deg < 2.0


def test_poses_of_another_hand_agree_in_no_frame() -> None:
    rng = np.random.default_rng(2)
    old = random_rotations(300, generator=rng)
    mirror = np.diag([1.0, 1.0, -1.0])
    found = find_frame(
        mirror @ old @ mirror, np.zeros((300, 2)), before=old, shift_before_yx_px=np.zeros((300, 2)), group=symmetry_group("C1")
    )
    assert found.spread_deg > 30


def _volume() -> NDArray[np.float32]:
    along = np.arange(BOX) - BOX // 2
    points = np.array([[0, 0, 4], [3, 0, -3], [-3, 3, 0], [-2, -4, -1], [4, 3, 2]])
    lines = np.exp(-((along[None, :, None] - points[:, None]) ** 2) / 2)
    return np.einsum("sz,sy,sx->zyx", *lines.transpose(2, 0, 1)).astype(np.float32)


def _portion(rotations: NDArray[np.float64], shift: NDArray[np.float64], seed: int) -> Portion:
    rng = np.random.default_rng(seed)
    clean = project_volume_2d(transform_volume(_volume()), rotations, shift_yx_px=shift)
    images = clean / clean.std() + 1.2 * rng.normal(size=clean.shape)
    n = len(rotations)
    return Portion(
        np.arange(n),
        (images / images.std()).astype(np.float32),
        np.ones((n, SETTING.grid.n_rings, SETTING.grid.half), np.float32),
        np.ones((n, BOX, BOX // 2 + 1), np.float32),
        (np.arange(n) % 2).astype(np.int8),
    )


@pytest.fixture(scope="module")
def refined() -> tuple[Portion, Progress]:
    """Particles, and a refinement that has got to their true poses."""
    rng = np.random.default_rng(3)
    portion = _portion(random_rotations(COUNT, generator=rng), rng.normal(scale=0.7, size=(COUNT, 2)), 4)
    references = np.stack([_volume()] * 2) * np.float32(1.0 / _volume().std() / 4)
    model = Model(references, np.ones((2, 9), np.float32), np.ones(BOX // 2), 6)
    progress, _ = iterate(Progress(model, None, 2, ((6.0, 180.0),) * 2), [portion], setting=SETTING, count=COUNT)
    return portion, progress


def test_a_frame_that_was_left_is_brought_back(refined: tuple[Portion, Progress]) -> None:
    _, progress = refined
    assert progress.poses is not None
    left = Frame(_turned((3.0, -4.0, 2.0)), np.array([0.5, -0.4, 0.3]), 0.0)
    away = bring_back(progress, left)  # any other frame
    assert away.poses is not None
    found = frame_since(progress.poses, away, setting=SETTING)
    assert rotation_distance_deg(found.rotation[None], left.rotation.T[None])[0] < 1e-3
    again = bring_back(away, found)
    assert again.poses is not None
    assert rotation_distance_deg(again.poses.rotations, progress.poses.rotations).max() < 1e-3
    assert again.poses.shift_yx_px == pytest.approx(progress.poses.shift_yx_px, abs=1e-6)
    for before, after in zip(progress.model.references, again.model.references, strict=True):
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.98
    for before, moved in zip(progress.model.references, away.model.references, strict=True):
        assert np.corrcoef(before.ravel(), moved.ravel())[0, 1] < 0.97


def test_refining_again_with_more_particles_stays_in_the_frame(refined: tuple[Portion, Progress]) -> None:
    portion, progress = refined
    assert progress.poses is not None
    known = 80
    before = PoseTable(*(getattr(progress.poses, name)[:known] for name in ("rotations", "shift_yx_px", "score", "probability")))
    away = Frame(_turned((2.0, 2.0, 0.0)), np.array([0.4, 0.0, 0.0]), 0.0)
    drifted = bring_back(progress, away).model  # the half volumes have left the frame of the poses
    reports: list[tuple[int, int]] = []

    def portions() -> Iterator[Portion]:
        yield portion

    done = refine_again(
        Last(drifted, before),
        portions,
        setting=SETTING,
        count=COUNT,
        most_iterations=5,
        report=lambda i, n: reports.append((i, n)),
    )
    assert done.progress.poses is not None
    left = frame_since(progress.poses, done.progress, setting=SETTING)
    assert left.turn_deg < 0.7
    assert np.linalg.norm(left.move_xyz_px) < 0.15
    assert np.corrcoef(done.maps.whole.ravel(), _volume().ravel())[0, 1] > 0.9
    assert reports[0] == (2, COUNT)
    assert done.progress.poses.rotations.shape == (COUNT, 3, 3)
