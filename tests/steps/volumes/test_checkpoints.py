"""Checkpoints of long steps: what is not whole counts as absent."""

from pathlib import Path

import numpy as np
import pytest
from refinement_set import ACQUISITION, EXPOSURES, expose

from icestream.steps.volumes import gathered
from icestream.steps.volumes.checkpoints import forget, keep_array, keep_arrays, load_arrays, read_kept
from icestream.steps.volumes.gathered import Gathered, gather_particles
from icestream.testing.context import StepBench


def spoil(path: Path, how: str) -> None:
    """Leave a file as a kill or a power cut might."""
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) * 2 // 3] if how == "cut" else b"")


@pytest.mark.parametrize("how", ["missing", "empty", "cut"])
def test_a_checkpoint_that_is_not_whole_is_absent(how: str, tmp_path: Path) -> None:
    one, several = tmp_path / "one.npy", tmp_path / "several.npz"
    keep_array(one, np.arange(1000))
    keep_arrays(several, a=np.arange(1000), b=np.ones(3))

    def both(path: Path) -> tuple[float, float]:
        stored = load_arrays(path)
        return float(stored["a"].sum()), float(stored["b"].sum())

    assert read_kept(one, np.load) is not None
    assert read_kept(several, both) == (499500.0, 3.0)
    for path in (one, several):
        spoil(path, how)
    assert read_kept(one, np.load) is None
    assert read_kept(several, both) is None


def test_a_checkpoint_without_one_of_its_parts_is_absent(tmp_path: Path) -> None:
    keep_arrays(tmp_path / "a.npz", a=np.ones(2))
    assert read_kept(tmp_path / "a.npz", lambda path: load_arrays(path)["b"]) is None


@pytest.mark.parametrize("how", ["missing", "empty", "cut"])
@pytest.mark.parametrize("spoiled", ["table.npy", "images_000000000.npy", "images_000000120.npy"])
def test_particles_that_are_not_all_there_are_gathered_anew(
    spoiled: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathered, "_LARGEST_FILE", 120)
    bench, folder = StepBench(tmp_path), tmp_path / "kept"
    particles = [expose(bench, index) for index in range(EXPOSURES)]

    def gather() -> Gathered:
        return gather_particles(particles, ACQUISITION, size=24, folder=folder, ctx=bench)

    first = gather()
    images = [np.load(path) for _, path in first.files]
    assert [number for number, _ in first.files] == [0, 120]
    spoil(folder / spoiled, how)
    again = gather()
    assert again.files == first.files
    assert again.table.tobytes() == first.table.tobytes()
    for (_, path), before in zip(again.files, images, strict=True):
        np.testing.assert_array_equal(np.load(path), before)


def test_particles_that_are_there_are_not_gathered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, folder = StepBench(tmp_path), tmp_path / "kept"
    particles = [expose(bench, index) for index in range(EXPOSURES)]
    first = gather_particles(particles, ACQUISITION, size=24, folder=folder, ctx=bench)
    monkeypatch.setattr(gathered, "prepare", None)
    again = gather_particles(particles, ACQUISITION, size=24, folder=folder, ctx=bench)
    assert again.table.tobytes() == first.table.tobytes()


def test_a_folder_is_forgotten_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "refine3d"
    keep_array(folder / "table.npy", np.ones(3))

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            forget(folder)
    assert not folder.exists()
    keep_array(folder / "table.npy", np.ones(3))
    forget(folder)
    assert not list(tmp_path.iterdir())
