"""The accumulator that learns the gain: against the simulator's camera, against a given gain, and with movies that are broken."""

import numpy as np
import pytest

from icestream.errors import ItemError
from icestream.flow import Exposure
from icestream.io.image import read_image, write_mrc
from icestream.io.movie import movie_header
from icestream.microscope import Pace, SimulationSettings, simulate
from icestream.microscope.simulate import open_studio
from icestream.records import GainReference, Movie
from icestream.steps.movies.estimate_gain import EstimateGain, EstimateGainParams, EstimateGainState
from icestream.testing.context import StepBench

SETTINGS = SimulationSettings(
    n_movies=12, n_particles=6, seed=3, height_px=256, width_px=320, n_frames=6, dose_per_frame_e_per_ang2=6, format="mrc"
)
PARAMS = EstimateGainParams(first_movies=2)


@pytest.fixture(scope="module")
def scope(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scope")
    return folder, simulate(folder, settings=SETTINGS, pace=Pace()).exposures


def movie_of(folder, name):
    path = folder / "movies" / f"{name}.mrc"
    header = movie_header(path)
    size = {"n_frames": header.n_frames, "height_px": header.height_px, "width_px": header.width_px}
    return Movie(file=f"session:movies/{name}.mrc", **size, format="mrc", size_bytes=path.stat().st_size)


def learn(bench, movies, *, portion=4, gain=None, params=PARAMS):
    state = EstimateGain().start(params, bench)
    for start in range(0, len(movies), portion):
        part = movies[start : start + portion]
        exposures = [Exposure(f"{start + index:032x}", f"movie_{start + index}") for index in range(len(part))]
        bench.exposure = Exposure("0" * 32, f"version_{start}")
        state = EstimateGain().add(state, exposures, part, [gain] * len(part), params, bench).state
        state = EstimateGainState.restore(state.model_dump_json(), version=1, block=None)
    return EstimateGain().emit(state, params, bench)


def test_the_camera_of_the_simulator_is_learnt_within_the_stated_noise(scope):
    folder, names = scope
    found = learn(StepBench(folder), [movie_of(folder, name) for name in names])
    gain, true = read_image(folder / found.file.partition(":")[2]), open_studio(SETTINGS).camera.gain
    usable = (true > 0) & (gain > 0)
    error = np.std(gain[usable] / gain[usable].mean() - true[usable] / true[usable].mean())
    assert found.operation == "multiply" and (found.height_px, found.width_px) == (256, 320)
    assert found.monitor.noise == pytest.approx(error, rel=0.2)
    assert error < 0.045
    assert found.monitor.n_defects == SETTINGS.n_dead_pixels + SETTINGS.n_hot_pixels
    assert found.monitor.n_movies == 12 and found.monitor.warning is None and found.monitor.residual is None


def test_portions_do_not_matter(scope):
    folder, names = scope
    movies = [movie_of(folder, name) for name in names[:6]]
    images = [
        read_image(folder / learn(StepBench(folder), movies, portion=size).file.partition(":")[2]).copy() for size in (1, 6)
    ]
    np.testing.assert_array_equal(images[0], images[1])


@pytest.mark.parametrize("turn", [0, 2])
def test_the_right_gain_leaves_nothing_however_it_lies(scope, turn):
    folder, names = scope
    gain = read_image(folder / "gain.mrc")
    write_mrc(folder / f"turned_{turn}.mrc", np.ascontiguousarray(np.rot90(gain, turn)), pixel_size_ang=1.0, remember=False)
    given = GainReference(file=f"session:turned_{turn}.mrc", height_px=256, width_px=320)
    monitor = learn(StepBench(folder), [movie_of(folder, name) for name in names], gain=given).monitor
    assert monitor.warning is None
    assert monitor.slope == pytest.approx(1, abs=0.05)
    assert monitor.residual.columns < 0.2 * monitor.raw.columns
    assert monitor.residual.rows < 0.3 * monitor.raw.rows


@pytest.mark.parametrize(
    ("kind", "warning"), [("another camera", "another camera"), ("size", "gain is 100×100"), ("old", "columns differ by")]
)
def test_a_gain_that_is_wrong_or_old_is_told(scope, kind, warning):
    folder, names = scope
    rng = np.random.default_rng(1)
    gains = {
        "another camera": np.exp(rng.normal(0, 0.05, (256, 320))),
        "size": np.exp(rng.normal(0, 0.05, (100, 100))),
        "old": read_image(folder / "gain.mrc") * np.exp(rng.normal(0, 0.06, 320)),
    }
    write_mrc(folder / "wrong.mrc", gains[kind].astype(np.float32), pixel_size_ang=1.0, remember=False)
    given = GainReference(file="session:wrong.mrc", height_px=gains[kind].shape[0], width_px=gains[kind].shape[1])
    found = learn(StepBench(folder), [movie_of(folder, name) for name in names], gain=given)
    assert warning in found.monitor.warning
    assert found.monitor.raw.columns > 0  # the estimate itself goes on


def _with_errors(gain, kind):
    """The gain with errors of single pixels: of all of them, or of a few large ones."""
    rng = np.random.default_rng(2)
    if kind == "all":
        return gain * np.exp(rng.normal(0, 0.025, gain.shape))
    wrong = gain.copy()
    wrong[rng.integers(0, gain.shape[0], 12), rng.integers(0, gain.shape[1], 12)] *= 4.5
    return wrong


@pytest.mark.parametrize(
    ("kind", "words", "limits"),
    [
        ("all", ["pixels differ by", "the 97.5 % quantile of the pixels is"], {"max_spread": None, "max_spread_ratio": None}),
        ("few", ["the largest pixel is"], {"max_peak_ratio": None, "max_spread": None}),
    ],
)
def test_errors_of_pixels_are_told_by_figures_that_have_limits(scope, kind, words, limits):
    folder, names = scope
    wrong = _with_errors(read_image(folder / "gain.mrc"), kind).astype(np.float32)
    write_mrc(folder / f"{kind}.mrc", wrong, pixel_size_ang=1.0, remember=False)
    given, movies = GainReference(file=f"session:{kind}.mrc", height_px=256, width_px=320), [movie_of(folder, n) for n in names]
    tight = PARAMS.model_copy(update={"max_peak_ratio": 3.5, "max_spread": 0.015, "max_spread_ratio": 1.02})
    warning = learn(StepBench(folder), movies, gain=given, params=tight).monitor.warning or ""
    assert [word for word in words if word not in warning] == []
    without = learn(StepBench(folder), movies, gain=given, params=tight.model_copy(update=limits)).monitor.warning or ""
    assert [word for word in words if word in without] == []


def test_quantiles_that_noise_alone_makes_are_not_told(scope):
    folder, names = scope
    given = GainReference(file="session:gain.mrc", height_px=256, width_px=320)
    monitor = learn(StepBench(folder), [movie_of(folder, name) for name in names[:3]], gain=given).monitor
    assert monitor.residual.spread_ratio > 1.3  # above the limit, by noise
    assert monitor.warning is None


def test_movies_that_cannot_be_used_are_left_out_and_counted(scope, tmp_path):
    folder, names = scope
    bench = StepBench(folder, roots={"bad": tmp_path})
    write_mrc(tmp_path / "small.mrc", np.ones((6, 64, 64), dtype=np.int16), pixel_size_ang=1.0, remember=False)
    write_mrc(tmp_path / "dark.mrc", np.zeros((6, 256, 320), dtype=np.int16), pixel_size_ang=1.0, remember=False)
    spoilt = np.full((6, 256, 320), 2, dtype=np.float32) + np.eye(256, 320, dtype=np.float32)
    spoilt[2, 3, 4] = np.nan
    write_mrc(tmp_path / "nan.mrc", spoilt, pixel_size_ang=1.0, remember=False)
    (tmp_path / "cut.mrc").write_bytes((folder / "movies" / f"{names[0]}.mrc").read_bytes()[:100_000])
    good = [movie_of(folder, name) for name in names[:4]]
    bad = [good[0].model_copy(update={"file": f"bad:{name}.mrc"}) for name in ("small", "dark", "nan", "cut", "none")]
    found = learn(bench, [*good[:2], *bad, *good[2:]])
    assert (found.monitor.n_movies, found.monitor.n_skipped) == (4, 5)
    assert "is not there" in found.monitor.skipped
    clean = learn(StepBench(folder), good)
    one, other = (read_image(folder / gain.file.partition(":")[2]) for gain in (found, clean))
    np.testing.assert_array_equal(one, other)
    with pytest.raises(ItemError, match=r"no movie could be used.*no beam"):
        learn(bench, bad[1:2])


def test_no_more_than_so_many_movies_are_read(scope):
    folder, names = scope
    movies = [movie_of(folder, name) for name in names[:6]]
    assert learn(StepBench(folder), movies, params=EstimateGainParams(max_movies=3)).monitor.n_movies == 3
