"""The step that refines a set of particles: what it publishes, how it goes on, and what it refuses."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refinement_set import (
    ACQUISITION,
    BOX,
    COUNT,
    EXPOSURES,
    OPTICS,
    PIXEL_ANG,
    ROTATIONS,
    SHIFT,
    VOLUME,
    expose,
)

from icestream.algorithms.refine3d import refine_volume
from icestream.algorithms.volumes import (
    fourier_shell_correlation_3d,
    resize_volume_3d,
    rotation_distance_deg,
    rotations_from_angles,
    soft_sphere_3d,
)
from icestream.errors import FileFormatError, ItemError
from icestream.io.image import read_stack, write_mrc
from icestream.io.star import read_star
from icestream.records import Volume
from icestream.steps.volumes import gathered
from icestream.steps.volumes.imported import ImportVolumeParams, read_volume
from icestream.steps.volumes.published import POSES
from icestream.steps.volumes.refine import Refine3DParams, plan_refinement, refine_particles
from icestream.steps.volumes.relion_star import publish_star
from icestream.testing.context import StepBench
from services.relion import relion

PARAMS = Refine3DParams(limit_ang=13.0, max_shift_ang=8.0, diameter_ang=100.0, max_iterations=3)


def initial(bench: StepBench) -> Volume:
    """Write the truth in another box, with other grey values, and return its record."""
    write_mrc(bench.path("session:start.mrc"), 7.0 * VOLUME[4:28, 4:28, 4:28], pixel_size_ang=PIXEL_ANG)
    return read_volume(bench.path("session:start.mrc"), "session:start.mrc", params=ImportVolumeParams())


def make_bench(folder: Path) -> StepBench:
    folder.mkdir()
    return StepBench(folder)


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> tuple[StepBench, Volume]:
    bench = make_bench(tmp_path_factory.mktemp("refine") / "a")
    particles = [expose(bench, index) for index in range(EXPOSURES)]
    return bench, refine_particles(particles, initial(bench), PARAMS, ACQUISITION, bench)


def test_the_map_is_the_particle_and_says_its_resolution(refined: tuple[StepBench, Volume]) -> None:
    bench, volume = refined
    assert (volume.verdict, volume.count, volume.symmetry, volume.reason) == ("map", COUNT, "C1", None)
    assert volume.resolution_ang is not None
    assert volume.resolution_ang < 25
    found = read_stack(bench.path(volume.map))
    assert volume.box_px == len(found)
    assert volume.bin * 2.5 * volume.box_px == pytest.approx(BOX * PIXEL_ANG)
    assert volume.frequency_per_ang is not None
    assert volume.fsc is not None
    assert len(volume.fsc) == len(volume.frequency_per_ang) == volume.box_px // 2
    ball = soft_sphere_3d(len(found), radius_px=9.0, edge_px=3.0)
    _, correlation = fourier_shell_correlation_3d(found * ball, resize_volume_3d(VOLUME, new_size=len(found)) * ball)
    assert correlation[1:7].min() > 0.8
    halves = [read_stack(bench.path(ref)) for ref in volume.half_maps]
    _, between = fourier_shell_correlation_3d(halves[0] * ball, halves[1] * ball)
    assert between[1:5].min() > 0.5
    assert volume.picture is not None
    assert bench.path(volume.picture).exists()


def test_poses_are_those_of_the_particles_by_their_names(refined: tuple[StepBench, Volume]) -> None:
    bench, volume = refined
    table = np.load(bench.path(volume.tables[0]))
    assert volume.index is not None
    index = np.load(bench.path(volume.index))
    assert index["count"].tolist() == [COUNT // EXPOSURES] * EXPOSURES
    assert len(np.unique(table["pid"])) == COUNT
    rows = table["pid"] - 100
    found = rotations_from_angles(np.column_stack([table[f"{name}_deg"] for name in ("rot", "tilt", "psi")]))
    assert np.median(rotation_distance_deg(found, ROTATIONS[rows])) < 5
    shift = np.column_stack([table["shift_y_px"], table["shift_x_px"]])
    assert np.median(np.hypot(*(shift - SHIFT[rows]).T)) < 0.6
    assert 0.35 < table["half"].mean() < 0.65


class Stopped(StepBench):
    """A bench whose call is cancelled in the second iteration."""

    def progress(self, fraction: float, message: str = "") -> None:
        """Notice where the call has come to."""
        super().progress(fraction, message)
        self.seen = message

    def cancelled(self) -> bool:
        """Tell whether the second iteration has begun."""
        return getattr(self, "seen", "").startswith("iteration 2")


def test_a_refinement_that_was_stopped_goes_on_and_ends_the_same(refined: tuple[StepBench, Volume], tmp_path: Path) -> None:
    bench, volume = refined
    (tmp_path / "b").mkdir()
    stopped = Stopped(tmp_path / "b")
    particles = [expose(stopped, index) for index in range(EXPOSURES)]
    start = initial(stopped)
    with pytest.raises(ItemError, match="was cancelled"):
        refine_particles(particles, start, PARAMS, ACQUISITION, stopped)
    kept = stopped.checkpoint_dir / "refine3d" / "progress.npz"
    with np.load(kept) as stored:
        assert len(stored["changes"]) in (1, 2)
    again = StepBench(tmp_path / "b")
    same = refine_particles(particles, start, PARAMS, ACQUISITION, again)
    assert same == volume
    assert again.path(same.tables[0]).read_bytes() == bench.path(volume.tables[0]).read_bytes()
    assert not list(again.checkpoint_dir.iterdir())


def test_a_refinement_whose_checkpoints_are_not_whole_ends_the_same(refined: tuple[StepBench, Volume], tmp_path: Path) -> None:
    bench, volume = refined
    stopped = Stopped(tmp_path)
    particles = [expose(stopped, index) for index in range(EXPOSURES)]
    start = initial(stopped)
    with pytest.raises(ItemError, match="was cancelled"):
        refine_particles(particles, start, PARAMS, ACQUISITION, stopped)
    folder = stopped.checkpoint_dir / "refine3d"
    next(folder.glob("images_*.npy")).unlink()
    (folder / "progress.npz").write_bytes((folder / "progress.npz").read_bytes()[:5000])
    assert refine_particles(particles, start, PARAMS, ACQUISITION, StepBench(tmp_path)) == volume
    assert stopped.path(volume.tables[0]).read_bytes() == bench.path(volume.tables[0]).read_bytes()


def test_the_step_comes_to_what_the_algorithm_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "AT_ONCE", 60)
    monkeypatch.setattr(sys.modules["icestream.algorithms.refine3d.refine"], "_JUDGES", 100)
    bench = StepBench(tmp_path)
    particles = [expose(bench, index) for index in range(EXPOSURES)]
    start = initial(bench)
    volume = refine_particles(particles, start, PARAMS, ACQUISITION, bench)
    setting = plan_refinement(PARAMS, start, box_px=BOX, pixel_size_ang=PIXEL_ANG)
    size, folder = setting.grid.box_px, tmp_path / "own"
    own = gathered.gather_particles(particles, ACQUISITION, size=size, folder=folder, ctx=bench)
    given = gathered.read_map(start, bench, size=size, pixel_size_ang=setting.pixel_size_ang, raw_pixel_ang=PIXEL_ANG / 2)
    done = refine_volume(given, lambda: own.portions(setting), setting=setting, count=COUNT, most_iterations=3, seed=bench.seed)
    np.testing.assert_array_equal(read_stack(bench.path(volume.map)), done.maps.whole)
    table = np.load(bench.path(volume.tables[0]))
    assert done.progress.poses is not None
    assert sorted(table["score"].tolist()) == sorted(done.progress.poses.score.astype(np.float32).tolist())
    assert volume.verdict == done.verdict.kind


def test_noise_is_published_without_a_resolution(tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "a")
    particles = [expose(bench, index, noise_only=True) for index in range(2)]
    volume = refine_particles(particles, initial(bench), PARAMS, ACQUISITION, bench)
    assert (volume.verdict, volume.resolution_ang) == ("none", None)
    assert volume.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: [], "got none"),
        (lambda some: [some[0], some[1].model_copy(update={"box_px": 40})], "one box and pixel size"),
    ],
)
def test_sets_that_cannot_be_refined_are_refused(change: Callable[[list[Any]], list[Any]], words: str, tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "a")
    particles = [expose(bench, index) for index in range(2)]
    with pytest.raises(ItemError, match=words):
        refine_particles(change(particles), initial(bench), PARAMS, ACQUISITION, bench)


def test_what_is_no_map_is_not_imported(tmp_path: Path) -> None:
    write_mrc(tmp_path / "flat.mrc", np.zeros((4, 8, 8), np.float32), pixel_size_ang=2.0)
    with pytest.raises(FileFormatError, match="a map is a cube"):
        read_volume(tmp_path / "flat.mrc", "movies:flat.mrc", params=ImportVolumeParams())
    write_mrc(tmp_path / "map.mrc", np.zeros((8, 8, 8), np.float32), pixel_size_ang=2.0)
    found = read_volume(tmp_path / "map.mrc", "movies:map.mrc", params=ImportVolumeParams(symmetry="d7", diameter_ang=12.0))
    assert (found.box_px, found.pixel_size_ang, found.symmetry, found.count) == (8, 2.0, "D7", 0)


def test_a_symmetry_that_is_none_is_no_parameter() -> None:
    with pytest.raises(ValueError, match="no point group"):
        Refine3DParams(symmetry="D0")
    with pytest.raises(ValueError, match="'Q5' is no point group; allowed: C1"):
        ImportVolumeParams(symmetry="Q5")


def test_a_volume_that_is_no_map_is_not_refined(tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "a")
    refused = initial(bench).model_copy(update={"verdict": "none", "reason": "it is noise"})
    with pytest.raises(ItemError, match="no map: it is noise"):
        refine_particles([expose(bench, 0)], refused, PARAMS, ACQUISITION, bench)


@pytest.mark.parametrize(("dtype", "multiplied", "known"), [("float32", 0, True), ("float16", 0, False), ("float32", 1, False)])
def test_relion_gets_float32_images_that_are_alike(dtype: str, multiplied: int, known: bool, tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "a")
    some = [expose(bench, index, bright=True) for index in range(2)]
    write_mrc(bench.path(str(some[1].stack)), read_stack(bench.path(str(some[1].stack))), dtype=dtype, pixel_size_ang=PIXEL_ANG)
    some[1] = some[1].model_copy(update={"ctf_premultiplied": bool(multiplied)})
    optics, table = np.zeros(2, [(name, "f8") for name in OPTICS]), np.zeros(2, POSES)
    table["micrograph"] = [one.table_key for one in some]
    assert (publish_star(table, optics, some, ACQUISITION, bench) is not None) == known


@pytest.mark.services
def test_relion_reads_half_maps_and_poses_and_comes_to_the_same(tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "a")
    particles = [expose(bench, index, bright=True) for index in range(EXPOSURES)]
    volume = refine_particles(particles, initial(bench), PARAMS, ACQUISITION, bench)
    assert volume.star is not None
    first = volume.half_maps[0].removeprefix("session:")
    assert volume.mask is not None
    mask = volume.mask.removeprefix("session:")
    (bench.folder / "post").mkdir()
    relion("relion_postprocess", "--i", first, "--o", "post/run", "--mask", mask, cwd=bench.folder)
    theirs = read_star(bench.folder / "post" / "run.star")["general"].floats("rlnFinalResolution")[0]
    assert volume.resolution_ang is not None
    assert volume.resolution_ang == pytest.approx(theirs, rel=0.15)
    star = volume.star.removeprefix("session:")
    relion("relion_reconstruct", "--i", star, "--o", "again.mrc", "--ctf", cwd=bench.folder)
    again = resize_volume_3d(read_stack(bench.folder / "again.mrc"), new_size=volume.box_px)
    ball = soft_sphere_3d(volume.box_px, radius_px=9.0, edge_px=3.0)
    _, correlation = fourier_shell_correlation_3d(again * ball, read_stack(bench.path(volume.map)) * ball)
    assert correlation[1:7].min() > 0.95
