"""RELION itself classifies and refines 180 small particles; where it is not installed these tests are skipped by name."""

import shutil

import numpy as np
import pytest
from refinement_set import ACQUISITION, BOX, EXPOSURES, PIXEL_ANG, ROTATIONS, SHIFT, VOLUME, expose

from icestream.algorithms.volumes import (
    fourier_shell_correlation_3d,
    rotation_distance_deg,
    rotations_from_angles,
    soft_sphere_3d,
)
from icestream.external.relion.classify2d import RelionClass2DParams, classify_with_relion
from icestream.external.relion.postprocess import RelionPostprocessParams, postprocess_with_relion
from icestream.external.relion.volumes import (
    RelionClass3DParams,
    RelionInitialModelParams,
    RelionRefine3DParams,
    classify_3d_with_relion,
    find_initial_model,
    refine_with_relion,
)
from icestream.flow import Exposure, ProgramSettings
from icestream.io.blocks import from_block
from icestream.io.image import read_stack, write_mrc
from icestream.records import ClassAverages, Particles, Volume
from icestream.steps.classify2d.averages import all_assignments
from icestream.steps.classify2d.static import StaticParams, assign_to_classes
from icestream.steps.particles.assigned import find_assignments
from icestream.testing.context import StepBench

ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
"""What Open MPI wants to hear before it runs for root, as a facility's file of programs may say."""
POSES = {"diameter_ang": 100.0, "max_shift_px": 2.0}

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[StepBench, list[Particles]]:
    for name in ("relion_refine", "relion_refine_mpi", "mpirun", "relion_postprocess"):
        if shutil.which(name) is None:
            pytest.skip(f"missing program: {name}")
    bench = StepBench(tmp_path_factory.mktemp("relion"), programs={"mpirun": ProgramSettings(environment=ROOT_MAY)})
    # dark particles are written anew, bright ones are linked
    return bench, [expose(bench, index, bright=index > 0) for index in range(EXPOSURES - 1)]


@pytest.fixture(scope="module")
def start(given: tuple[StepBench, list[Particles]]) -> Volume:
    bench, _ = given
    write_mrc(bench.path("session:start.mrc"), VOLUME[4:28, 4:28, 4:28], pixel_size_ang=PIXEL_ANG)
    return Volume(map="session:start.mrc", count=0, box_px=24, bin=1.0, pixel_size_ang=PIXEL_ANG)


def called(bench: StepBench, name: str) -> StepBench:
    """Return the bench for one call, whose files have a name of their own."""
    return StepBench(bench.folder, programs=bench.programs, exposure=Exposure("0" * 32, name))


def rows_of_truth(table: np.ndarray) -> np.ndarray:
    return table["pid"] - 100


def test_2d_classes_are_ours_in_all_that_follows(given: tuple[StepBench, list[Particles]]) -> None:
    bench, particles = given
    params = RelionClass2DParams(n_classes=4, iterations=3, diameter_ang=100, max_shift_px=2, angle_deg=10)
    found = classify_with_relion(particles, params, ACQUISITION, called(bench, "classes"))
    assert isinstance(found, ClassAverages)
    assert (found.count, sum(one.count for one in found.classes), found.class_ids) == (180, 180, [1, 2, 3, 4])
    assert read_stack(bench.path(found.stack)).shape == (4, BOX, BOX)
    assert all(one.score is not None and 0 <= one.score <= 1 for one in found.classes)
    same, turn, shift = [], [], []
    for one in particles:
        theirs = find_assignments(found, one, bench)
        assert theirs is not None
        ours = from_block(assign_to_classes(one, found, StaticParams(limit_ang=13.0), ACQUISITION, bench).block)
        order = np.argsort(theirs["pid"])[np.argsort(np.argsort(ours["pid"]))]
        alike = ours["class_id"] == theirs["class_id"][order]
        same.append(alike)
        turn.append((ours["psi_deg"] - theirs["psi_deg"][order])[alike])
        shift.append(np.stack([ours[name] - theirs[name][order] for name in ("shift_y_px", "shift_x_px")], axis=1)[alike])
    assert np.concatenate(same).mean() > 0.6
    assert np.median(np.abs((np.concatenate(turn) + 180) % 360 - 180)) < 30  # 90 if it turned the other way
    assert np.median(np.abs(np.concatenate(shift))) < 1.0
    assert not (bench.checkpoint_dir / "relion_class2d").exists()


def test_refined_poses_are_those_of_the_particles_and_the_map_is_post_processed(
    given: tuple[StepBench, list[Particles]], start: Volume
) -> None:
    bench, particles = given
    params = RelionRefine3DParams(initial_ang=25, angle_deg=15, local_angle_deg=7.5, **POSES)
    refined = refine_with_relion(particles, start, params, ACQUISITION, called(bench, "refined"))
    assert (refined.count, refined.box_px, refined.verdict, len(refined.half_maps)) == (180, BOX, "map", 2)
    table = np.load(bench.path(refined.tables[0]))
    angles = np.column_stack([table[f"{name}_deg"] for name in ("rot", "tilt", "psi")]).astype(np.float64)
    assert np.median(rotation_distance_deg(rotations_from_angles(angles), ROTATIONS[rows_of_truth(table)])) < 12
    moved = np.stack([table["shift_y_px"], table["shift_x_px"]], axis=1)
    assert np.corrcoef(moved.ravel(), SHIFT[rows_of_truth(table)].ravel())[0, 1] > 0.6
    ball = soft_sphere_3d(BOX, radius_px=9.0, edge_px=3.0)
    _, agreement = fourier_shell_correlation_3d(read_stack(bench.path(refined.map)) * ball, VOLUME * ball)
    assert agreement[1:6].min() > 0.8
    sharp = postprocess_with_relion(refined, RelionPostprocessParams(sharpen=False), ACQUISITION, called(bench, "sharp"))
    assert sharp.resolution_ang is not None
    assert refined.resolution_ang is not None
    assert 2 * PIXEL_ANG <= sharp.resolution_ang <= refined.resolution_ang + 4  # by a shell or two
    assert (sharp.tables, sharp.map != refined.map) == (refined.tables, True)


def test_3d_classes_have_maps_and_all_particles(given: tuple[StepBench, list[Particles]], start: Volume) -> None:
    bench, particles = given
    params = RelionClass3DParams(n_classes=2, iterations=3, initial_ang=25, angle_deg=15, **POSES)
    found = classify_3d_with_relion(particles, start, params, ACQUISITION, called(bench, "states"))
    assert [one.count for one in found.classes] == sorted((one.count for one in found.classes), reverse=True)
    assert sum(one.count for one in found.classes) == found.count == 180
    table = all_assignments(found, bench)
    assert np.bincount(table["class_id"], minlength=2).tolist() == [one.count for one in found.classes]
    assert read_stack(bench.path(found.stack)).shape == (2, BOX, BOX)


def test_an_initial_model_is_a_map_of_the_particles(given: tuple[StepBench, list[Particles]]) -> None:
    bench, particles = given
    params = RelionInitialModelParams(first_iterations=1, iterations=1, last_iterations=1, first_ang=40, last_ang=25, **POSES)
    found = find_initial_model(particles[:1], params, ACQUISITION, called(bench, "initial"))
    assert (found.count, found.box_px, found.symmetry, found.half_maps) == (60, BOX, "C1", [])
    assert read_stack(bench.path(found.map)).std() > 0


def test_an_interrupted_run_goes_on_after_the_last_iteration(
    given: tuple[StepBench, list[Particles]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, particles = given
    bench = called(bench, "interrupted")
    params = RelionClass2DParams(n_classes=2, iterations=1, diameter_ang=100, max_shift_px=2, angle_deg=20)
    with monkeypatch.context() as kept:
        kept.setattr("icestream.external.relion.classify2d.shutil.rmtree", lambda _folder: None)
        classify_with_relion(particles[:1], params, ACQUISITION, bench)
    log = bench.checkpoint_dir / "relion_class2d"
    (log / "run_it002_optimiser.star").write_text("")  # as a kill leaves it
    found = classify_with_relion(particles[:1], params.model_copy(update={"iterations": 2}), ACQUISITION, bench)
    assert found.count == particles[0].count
