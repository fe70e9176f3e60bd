"""A call that was granted a GPU computes there, through CuPy, or says why it cannot.

CuPy is played by array-api-strict, whose second device lets nothing through that was not moved on purpose.
"""

from types import SimpleNamespace

import array_api_strict
import numpy as np
import pytest

from icestream.errors import ItemError
from icestream.io.image import read_image, write_mrc
from icestream.records import Acquisition, GainReference, Movie
from icestream.steps.gpu import granted_place
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.testing.context import StepBench

SHIFTS = np.array([[0, 0], [2, -1], [3, -3], [5, -4], [6, -6], [7, -6]])
KNOWN = Acquisition(pixel_size_ang=1.1, voltage_kv=300, dose_per_frame_e_per_ang2=1.0)


class FakeCupy:
    """What `granted_place` uses of CuPy; counts how often memory was handed back."""

    __version__ = "13"

    def __init__(self, *, gpus=1, broken=None):
        self.handed_back = 0
        self._gpus, self._broken = gpus, broken
        self.cuda = SimpleNamespace(Device=self._device, runtime=SimpleNamespace(getDeviceCount=self._count))

    def _count(self):
        if self._broken:
            raise RuntimeError(self._broken)
        return self._gpus

    def _device(self, number):
        assert number == 0
        return array_api_strict.Device("device1")

    def get_default_memory_pool(self):
        return SimpleNamespace(free_all_blocks=self._hand_back)

    def _hand_back(self):
        self.handed_back += 1


@pytest.fixture
def install(monkeypatch):
    def use(cupy):
        found = {"cupy": cupy, "array_api_compat.cupy": array_api_strict}

        def import_module(name):
            if found[name] is None:
                raise ModuleNotFoundError(f"No module named {name!r}")
            return found[name]

        monkeypatch.setattr("icestream.steps.gpu.import_module", import_module)
        return cupy

    return use


def _movie(folder):
    rng = np.random.default_rng(1)
    specimen = np.repeat(np.repeat(rng.uniform(2, 6, (64, 60)), 4, axis=0), 4, axis=1)  # (256, 240)
    gain = rng.uniform(0.8, 1.25, specimen.shape).astype(np.float32)
    frames = np.stack([rng.poisson(np.roll(specimen, tuple(shift), (0, 1)) / gain) for shift in SHIFTS]).astype(np.int16)
    gain[7, 9:12] = 0
    write_mrc(folder / "movie.mrc", frames, pixel_size_ang=1.1, remember=False)
    write_mrc(folder / "gain.mrc", gain, pixel_size_ang=1.1, remember=False)
    size = (folder / "movie.mrc").stat().st_size
    movie = Movie(file="session:movie.mrc", n_frames=6, height_px=256, width_px=240, format="mrc", size_bytes=size)
    return movie, GainReference(file="session:gain.mrc", height_px=256, width_px=240, operation="multiply")


@pytest.mark.parametrize("reduced", [False, True])
def test_on_a_gpu_a_movie_becomes_the_same_micrograph(tmp_path, install, reduced):
    cupy = install(FakeCupy())
    params = MotionParams(gain_orientation="as stored", write_halves=True, bin=1.5)
    results = []
    for name, gpu in (("cores", None), ("gpu", 3)):
        (tmp_path / name).mkdir()
        bench = StepBench(tmp_path / name, gpu=gpu, reduced=reduced)
        movie, gain = _movie(bench.folder)
        results.append((bench, correct_motion(movie, gain, params, KNOWN, bench)))
    (bench, here), (bench_there, there) = results
    assert cupy.handed_back == 1
    np.testing.assert_allclose(there.motion.global_yx_px, here.motion.global_yx_px, atol=2e-3)
    assert there.frames == here.frames
    for name in ("image", "unweighted", "even", "odd"):
        image, other = (read_image(b.path(getattr(record, name))) for b, record in ((bench, here), (bench_there, there)))
        assert np.abs(image - other).max() < 2e-3 * image.std(), name


def test_a_gpu_without_cupy_is_refused_and_not_replaced_by_cores(tmp_path, install):
    install(None)
    bench = StepBench(tmp_path, gpu=0)
    movie, gain = _movie(tmp_path)
    with pytest.raises(ItemError, match=r"CuPy cannot be imported \(No module named 'cupy'\): install icestream\[gpu\]"):
        correct_motion(movie, gain, MotionParams(), KNOWN, bench)
    assert not (tmp_path / "steps").exists()


@pytest.mark.parametrize(
    ("cupy", "words"),
    [(FakeCupy(gpus=0), "CuPy 13 sees none"), (FakeCupy(broken="driver too old"), r"cannot reach one \(driver too old\)")],
)
def test_a_gpu_that_cupy_cannot_use_is_named(tmp_path, install, cupy, words):
    install(cupy)
    with pytest.raises(ItemError, match=words), granted_place(StepBench(tmp_path, gpu=0)):
        pytest.fail("nothing may be computed")


def test_memory_is_handed_back_after_an_error(tmp_path, install):
    cupy = install(FakeCupy())
    with pytest.raises(MemoryError), granted_place(StepBench(tmp_path, gpu=0)):
        raise MemoryError("out of memory")
    assert cupy.handed_back == 1


def test_without_a_gpu_cupy_is_not_even_looked_for(tmp_path, install):
    install(None)
    with granted_place(StepBench(tmp_path)) as place:
        assert place.on_cores
