"""The step that sorts particles into 3D classes, and what is made of its classes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.volumes import (
    angles_from_rotations,
    fourier_shell_correlation_3d,
    project_volume_2d,
    random_rotations,
    resize_volume_3d,
    soft_sphere_3d,
    transform_volume,
)
from icestream.errors import ItemError
from icestream.flow import Exposure
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import read_stack, write_mrc
from icestream.records import Acquisition, Particles, Volume, VolumeClasses
from icestream.steps.volumes.classify import Classify3DParams, ClassVolumeParams, classify_set_3d, take_class_volume
from icestream.steps.volumes.consensus_classes import ConsensusClassesParams, find_consensus_classes
from icestream.steps.volumes.published import POSES
from icestream.testing.context import StepBench

BOX, PIXEL_ANG, COUNT, EXPOSURES = 32, 5.0, 240, 4
ACQUISITION = Acquisition(pixel_size_ang=PIXEL_ANG / 2, voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.1)
PARAMS = Classify3DParams(limit_ang=13.0, start_ang=32.0, diameter_ang=110.0, passes=6)
RNG = np.random.default_rng(7)
TRUTH = (RNG.random(COUNT) > 0.6).astype(int)
ROTATIONS = random_rotations(COUNT, generator=RNG)
SHIFT = RNG.normal(0, 0.8, (COUNT, 2))
LACKING = 5
"""Particles without a pose."""


def _conformations() -> NDArray[np.float32]:
    grid = np.arange(BOX) - BOX // 2
    z, y, x = grid[:, None, None], grid[None, :, None], grid[None, None, :]
    body = [(0, 0, 0), (4, 2, -3), (-4, 3, 1), (-1, -5, 3), (2, -2, 5)]

    def blobs(arm: tuple[int, int, int]) -> NDArray[np.float32]:
        return np.asarray(
            sum(np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / 5.0) for a, b, c in [*body, arm]), np.float32
        )

    return np.stack([blobs((7, 0, 0)), blobs((0, 7, 0))])


VOLUMES = _conformations()


def expose(bench: StepBench, index: int) -> Particles:
    """Write the particles of one exposure, bright, without a CTF."""
    rows = np.arange(index, COUNT, EXPOSURES)
    table = np.zeros(len(rows), dtype=dtype_of(Particles.block_columns))
    table["pid"], table["slice"] = rows, np.arange(len(rows))
    for name in ("defocus_u_ang", "defocus_v_ang"):
        table[name] = np.nan
    images = np.empty((len(rows), BOX, BOX), np.float32)
    for k in (0, 1):
        mine = TRUTH[rows] == k
        images[mine] = project_volume_2d(transform_volume(VOLUMES[k]), ROTATIONS[rows][mine], shift_yx_px=SHIFT[rows][mine])
    images += 1.6 * images.std() * np.random.default_rng(index).normal(size=images.shape).astype(np.float32)
    stack = f"session:{index}.mrcs"
    write_mrc(bench.path(stack), images, pixel_size_ang=PIXEL_ANG)
    return Particles(
        stack=stack, count=len(rows), box_px=BOX, bin=2.0, inverted=True, phase_flipped=False,
        micrograph=f"session:m{index}.mrc", origin=f"{index:032x}", picks_key="p", block=to_block(table),
    )  # fmt: skip


def refined(bench: StepBench, particles: list[Particles]) -> Volume:
    """A volume that knows the true poses of all but some particles."""
    table = np.zeros(COUNT, dtype=POSES)
    table["pid"] = np.arange(COUNT)
    table["micrograph"] = np.array([one.table_key for one in particles])[np.arange(COUNT) % EXPOSURES]
    table["rot_deg"], table["tilt_deg"], table["psi_deg"] = angles_from_rotations(ROTATIONS).T
    table["shift_y_px"], table["shift_x_px"] = SHIFT.T
    np.save(bench.path("session:poses.npy"), np.random.default_rng(1).permutation(table[LACKING:]))
    return Volume(map="session:map.mrc", count=COUNT, box_px=BOX, bin=2.0, tables=["session:poses.npy"])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> StepBench:
    return StepBench(tmp_path_factory.mktemp("classify"))


@pytest.fixture(scope="module")
def particles(bench: StepBench) -> list[Particles]:
    return [expose(bench, index) for index in range(EXPOSURES)]


@pytest.fixture(scope="module")
def classes(bench: StepBench, particles: list[Particles]) -> VolumeClasses:
    return classify_set_3d(particles, refined(bench, particles), PARAMS, ACQUISITION, bench)


def test_classes_are_the_conformations_largest_first(bench: StepBench, classes: VolumeClasses) -> None:
    assert classes.count == COUNT - LACKING
    assert [info.id for info in classes.classes] == [0, 1]
    assert classes.classes[0].count > classes.classes[1].count
    table = np.load(bench.path(classes.tables[0]))
    assert np.mean(table["class_id"] == TRUTH[table["pid"]]) > 0.93
    assert table["class_probability"].min() >= 0.5
    assert sorted(table["pid"].tolist()) == list(range(LACKING, COUNT))
    for k, info in enumerate(classes.classes):
        assert info.count == int((table["class_id"] == k).sum())
        found = read_stack(bench.path(info.map))
        alike = [np.corrcoef(found.ravel(), resize_volume_3d(one, new_size=len(found)).ravel())[0, 1] for one in VOLUMES]
        assert alike[k] > alike[1 - k]
    assert classes.picture is not None
    assert bench.path(classes.picture).exists()
    assert len(read_stack(bench.path(classes.stack))) == 2
    assert not list(bench.checkpoint_dir.iterdir())


def test_the_volume_of_a_class_can_be_refined_further(bench: StepBench, classes: VolumeClasses) -> None:
    volume = take_class_volume(classes, ClassVolumeParams(class_id=1), bench)
    assert (volume.count, volume.map, len(volume.half_maps)) == (classes.classes[1].count, classes.classes[1].map, 2)
    assert volume.bin * volume.box_px == pytest.approx(2.0 * BOX)
    assert (volume.verdict, volume.reason) == ("map", None)
    halves = np.stack([read_stack(bench.path(ref)) for ref in volume.half_maps])
    outside = ~(soft_sphere_3d(volume.box_px, radius_px=volume.box_px / 2 - 1, edge_px=0.1) > 0)
    assert halves[:, outside].std() > 0.1 * halves.std()
    assert volume.diameter_ang is not None and volume.fsc is not None
    pixel_ang = BOX * PIXEL_ANG / volume.box_px
    ball = soft_sphere_3d(volume.box_px, radius_px=volume.diameter_ang / 2 / pixel_ang, edge_px=3.0)
    assert fourier_shell_correlation_3d(*(halves * ball))[1] == pytest.approx(volume.fsc, abs=1e-3)
    with pytest.raises(ItemError, match="no class 5"):
        take_class_volume(classes, ClassVolumeParams(class_id=5), bench)


def test_a_class_without_a_resolution_is_no_map(bench: StepBench, classes: VolumeClasses) -> None:
    first = classes.classes[0].model_copy(update={"resolution_ang": None})
    volume = take_class_volume(classes.model_copy(update={"classes": [first]}), ClassVolumeParams(), bench)
    assert (volume.verdict, volume.reason) == ("none", "its halves agree nowhere")


def test_classes_of_another_seed_can_be_compared(bench: StepBench, particles: list[Particles], classes: VolumeClasses) -> None:
    first = np.load(bench.path(classes.tables[0]))
    kept = [bench.path(f"session:first{number}") for number in range(2)]
    for path, ref in zip(kept, (classes.tables[0], classes.stack), strict=True):
        path.write_bytes(bench.path(ref).read_bytes())
    one = classes.model_copy(update={"tables": ["session:first0"], "stack": "session:first1"})
    other = replace(bench, exposure=Exposure("1" * 32, "other"))
    params = PARAMS.model_copy(update={"seed": 2})
    second = classify_set_3d(particles, refined(bench, particles), params, ACQUISITION, other)
    assert (np.load(bench.path(second.tables[0]))["score"] != first["score"]).any()
    found = find_consensus_classes([one, second], ConsensusClassesParams(), other)
    assert (found.n_undecided, len(found.groups)) == (0, 2)
    assert [one.classes for one in found.groups] == [[0, 0], [1, 1]]


def test_a_classification_needs_poses_of_its_particles(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    particles = [expose(bench, index) for index in range(EXPOSURES)]
    volume = refined(bench, particles)
    with pytest.raises(ItemError, match="no poses"):
        classify_set_3d(particles, volume.model_copy(update={"tables": []}), PARAMS, ACQUISITION, bench)
    with pytest.raises(ItemError, match="no map: it is noise"):
        refused = volume.model_copy(update={"verdict": "none", "reason": "it is noise"})
        classify_set_3d(particles, refused, PARAMS, ACQUISITION, bench)
    others = [one.model_copy(update={"picks_key": "q"}) for one in particles]
    with pytest.raises(ItemError, match="none of the particles"):
        classify_set_3d(others, volume, PARAMS, ACQUISITION, bench)
    with pytest.raises(ItemError, match="one box"):
        classify_set_3d([], volume, PARAMS, ACQUISITION, bench)
