"""Learning the gain of the camera from the movies themselves, and watching the one that was given."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.gain.correction import prepare_gain_2d
from icestream.algorithms.gain.estimate import (
    GainFigures,
    GainSums,
    add_movie_counts,
    estimate_response_2d,
    invert_response_2d,
    measure_noise,
    measure_unevenness,
)
from icestream.algorithms.gain.orientation import choose_gain, fit_gain_size_2d, measure_gain_slope, orient_gain_2d
from icestream.algorithms.gain.shrink import measure_reliability, shrink_gain_2d
from icestream.algorithms.motion.frames import check_counts, sum_raw_frames
from icestream.algorithms.namespaces import to_numpy
from icestream.errors import IcestreamError, ItemError
from icestream.flow import Accumulator, Context, Exposure, Field, Params, Progress, Update, Verdict, before, keep, step, wait
from icestream.io.gain import read_gain
from icestream.io.image import write_mrc
from icestream.io.movie import open_movie
from icestream.io.preview import write_preview
from icestream.records import FileRef, GainMonitor, GainReference, Method, Movie, Record, Text, Unevenness

_EER_FRACTIONS = 40
_STALE_SLOPE = 0.8
_QUANTILE_SD = 1.96
"""Where the 2.5 % and 97.5 % quantiles of normal noise lie, in standard deviations."""
_PICTURE_PX = 384


class EstimateGainParams(Params):
    """From which movies the gain is learnt, and how often a new version appears."""

    first_movies: int = Field(10, ge=2, le=10_000, description="Movies before the first version; movies that need it wait")
    update_movies: int = Field(50, ge=1, le=10_000, description="Movies between later versions")
    max_movies: int = Field(500, ge=2, description="Movies after which nothing more is learnt; later ones only pass through")
    max_unevenness: float = Field(
        0.02,
        gt=0,
        description="Warn if rows, columns or blocks differ by more than this after the given gain (a fraction)",
    )
    max_spread: float | None = Field(
        0.04,
        gt=0,
        description="Warn if pixels differ by more than this after the given gain (a fraction, noise taken out)",
        json_schema_extra=before(3, None),
    )
    max_spread_ratio: float | None = Field(
        1.15,
        gt=1,
        description="Warn if the 97.5 % quantile of the pixels over the 2.5 % quantile is above this, noise taken out",
        json_schema_extra=before(3, None),
    )
    max_peak_ratio: float | None = Field(
        4.5,
        gt=1,
        description="Warn if the largest pixel over the 97.5 % quantile is above this",
        json_schema_extra=before(3, None),
    )


class EstimateGainState(Record):
    """How far the estimate has come; the sums are a published file."""

    sums: FileRef | None = None
    height_px: int = 0
    width_px: int = 0
    n_skipped: int = 0
    skipped: str | None = None
    given: GainReference | None = None
    movie_format: str | None = None
    n_movies: int = 0


@step.accumulate(
    "estimate_gain",
    version=3,
    memory_gb=3,
    method=Method((Text("The gain of the camera was learnt from the counts of at most {max_movies} movies."),), ()),
)
class EstimateGain(Accumulator[EstimateGainState, GainReference]):
    """Learn the gain of the camera from the counts of the session's movies, and check whether a given gain is the right one.

    The counts of each pixel, added up over movies of the specimen, over those of the mean pixel are its response; the gain is
    its inverse, 0 at defects. Each version has figures: the noise of the estimate (from two halves of the movies), and how
    uneven rows, columns and blocks are without a gain and after the one that was given. What is likely noise in single pixels is
    taken out of the gain, so that a gain of few movies harms nothing. Movies that cannot be read, are empty
    or of another size are left out and counted. The gain is for frames as they are read: it multiplies.
    """

    portion = 50

    def when(self, progress: Progress, params: EstimateGainParams) -> Verdict:
        """Wait for the first movies, then for whole portions, or the end."""
        target = params.update_movies if progress.passed else params.first_movies
        if progress.stream_closed or progress.waiting >= target:
            return keep()
        return wait(f"{progress.waiting} of {target} movies")

    def start(self, params: EstimateGainParams, ctx: Context) -> EstimateGainState:
        """Return the state before the first movie."""
        return EstimateGainState()

    def add(
        self,
        state: EstimateGainState,
        exposures: Sequence[Exposure],
        movie: Sequence[Movie],
        gain: Sequence[GainReference | None],
        params: EstimateGainParams,
        ctx: Context,
    ) -> Update[EstimateGainState]:
        """Add up the counts of new movies."""
        sums = _load(state.sums, ctx) if state.sums else None
        before = sums
        for index, exposure in enumerate(exposures):
            state = state.model_copy(update={"given": gain[index] or state.given})
            if state.n_movies >= params.max_movies:
                continue
            ctx.progress(index / len(exposures), exposure.name)
            try:
                total = _sum_movie(movie[index], ctx)
                sums = _fold(sums, total, exposure)
            except (IcestreamError, ValueError) as error:
                text = f"{exposure.name}: {error}"
                state = state.model_copy(update={"n_skipped": state.n_skipped + 1, "skipped": text})
                continue
            state = state.model_copy(update={"n_movies": sums.n_movies, "movie_format": movie[index].format})
        if sums is not None and sums is not before:
            height, width = sums.shape
            state = state.model_copy(update={"sums": _save(sums, ctx), "height_px": height, "width_px": width})
        return Update(state)

    def emit(self, state: EstimateGainState, params: EstimateGainParams, ctx: Context) -> GainReference:
        """Write the gain as it is known now, with its figures.

        Raises
        ------
        ItemError
            No movie could be used.
        """
        if state.sums is None:
            raise ItemError(f"no movie could be used for the gain, at least 1 is needed; {state.skipped or 'none arrived'}")
        sums = _load(state.sums, ctx)
        reliability = measure_reliability(measure_unevenness(sums), noise=measure_noise(sums))
        values = shrink_gain_2d(invert_response_2d(estimate_response_2d(sums)), reliability=reliability)
        with ctx.publish("_gain.mrc") as out:
            write_mrc(out.path, values, pixel_size_ang=1.0)
        return GainReference(
            file=out.ref,
            height_px=state.height_px,
            width_px=state.width_px,
            operation="multiply",
            monitor=_watch(state, sums, values, reliability, params, ctx),
        )


def _sum_movie(movie: Movie, ctx: Context) -> NDArray[np.float32]:
    group = max(1, round(movie.n_frames / _EER_FRACTIONS)) if movie.format == "eer" else 1
    with open_movie(ctx.path(movie.file), eer_group=group) as reader:
        summed, whole = sum_raw_frames(reader.frames())
        total = to_numpy(summed)
        check_counts(total, n_frames=reader.n_frames, whole=whole)
    if not np.isfinite(total).all():
        raise ItemError(f"{np.count_nonzero(~np.isfinite(total))} pixels are NaN or infinite")
    return total


def _fold(sums: GainSums | None, total: NDArray[np.float32], exposure: Exposure) -> GainSums:
    shape = (total.shape[0], total.shape[1])
    if sums is None:
        sums = GainSums.start(shape)
    if sums.shape != shape:
        raise ItemError(f"{exposure.name}: {shape[0]}×{shape[1]} pixels, the first movie had {sums.shape[0]}×{sums.shape[1]}")
    return add_movie_counts(sums, total)


def _watch(
    state: EstimateGainState,
    sums: GainSums,
    values: NDArray[np.float32],
    reliability: float,
    params: EstimateGainParams,
    ctx: Context,
) -> GainMonitor:
    """Return the figures of this version; those of a given gain where there is one."""
    noise = measure_noise(sums) * np.sqrt(reliability)  # what is left of it after shrinking
    raw = measure_unevenness(sums)
    monitor = GainMonitor(
        n_movies=sums.n_movies,
        n_skipped=state.n_skipped,
        skipped=state.skipped,
        noise=float(noise) if np.isfinite(noise) else None,
        reliability=round(reliability, 4),
        n_defects=int(np.count_nonzero(values == 0)),
        n_outliers=sums.n_outliers,
        raw=_record(raw),
        picture=_draw(np.where(values > 0, values, np.float32(1)), "_gain.png", ctx),
    )
    if state.given is None:
        return monitor
    try:
        factor, defects = _fit_given(state, state.given, sums, ctx)
    except (IcestreamError, ValueError) as error:
        return monitor.model_copy(update={"warning": str(error)})
    residual = measure_unevenness(sums, gain=np.where(defects, np.float32(0), factor))
    slope, error_of_slope = measure_gain_slope(sums.counts.sum(axis=0), factor)
    left = np.where(defects | (values == 0), np.float32(1), estimate_response_2d(sums) * factor)
    found: dict[str, object] = {
        "residual_picture": _draw(left, "_residual.png", ctx),
        "residual": _record(residual),
        "warning": _warn(residual, -slope, measure_noise(sums), params),
    }
    if np.isfinite(error_of_slope):
        found["slope"] = -slope
    return monitor.model_copy(update=found)


def _fit_given(
    state: EstimateGainState, given: GainReference, sums: GainSums, ctx: Context
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return factor and defects of the given gain, turned and sized as the movies ask."""
    path = ctx.path(given.file)
    stored, usual = read_gain(path, movie_format=state.movie_format, operation=given.operation)
    choice = choose_gain(sums.counts.sum(axis=0), stored, operation=given.operation, usual=usual, orientation="auto")
    if choice.operation != usual:
        stored, _ = read_gain(path, operation=choice.operation)
    turned = orient_gain_2d(stored, orientation=choice.orientation)
    fitted = fit_gain_size_2d(turned, shape=sums.shape, operation=choice.operation)
    return prepare_gain_2d(fitted, operation=choice.operation, shape=sums.shape)


def _warn(residual: GainFigures, slope: float, noise: float, params: EstimateGainParams) -> str | None:
    """Say what is wrong with the given gain, or None; quantiles are not judged where noise is larger than what they tell."""
    found = []
    if slope < _STALE_SLOPE:
        found.append(f"only {slope:.2f} of the given gain is in the movies: it may be old")
    for name, value in (("rows", residual.rows), ("columns", residual.columns), ("blocks", residual.blocks)):
        if value > params.max_unevenness:
            found.append(f"{name} differ by {value:.1%} after the given gain, allowed are {params.max_unevenness:.1%}")
    if params.max_spread is not None and residual.total > params.max_spread:
        found.append(f"pixels differ by {residual.total:.1%} after the given gain, allowed are {params.max_spread:.1%}")
    if not _QUANTILE_SD * noise < 1:  # also where it is not known
        return "; ".join(found) or None
    allowed = None if params.max_spread_ratio is None else _with_noise(params.max_spread_ratio, noise)
    if allowed is not None and residual.spread_ratio > allowed:
        found.append(
            f"the 97.5 % quantile of the pixels is {residual.spread_ratio:.3g} times the 2.5 % quantile after the given gain, "
            f"allowed are {allowed:.3g}, noise included"
        )
    if params.max_peak_ratio is not None and residual.peak_ratio > params.max_peak_ratio:
        found.append(
            f"the largest pixel is {residual.peak_ratio:.3g} times the 97.5 % quantile after the given gain, "
            f"allowed is {params.max_peak_ratio:g}"
        )
    return "; ".join(found) or None


def _with_noise(ratio: float, noise: float) -> float:
    """Return what a ratio of quantiles is where normal noise comes on top of normal deviations."""
    reach = min(math.hypot((ratio - 1) / (ratio + 1), _QUANTILE_SD * noise), 0.999)
    return (1 + reach) / (1 - reach)


def _record(figures: GainFigures) -> Unevenness | None:
    values = vars(figures)
    return Unevenness(**values) if all(np.isfinite(value) for value in values.values()) else None


def _draw(values: NDArray[np.float32], suffix: str, ctx: Context) -> FileRef:
    with ctx.publish(suffix) as out:
        write_preview(out.path, values, max_px=_PICTURE_PX)
    return out.ref


def _save(sums: GainSums, ctx: Context) -> FileRef:
    with ctx.publish("_sums.npz") as out, out.path.open("wb") as handle:
        counts = np.array([sums.n_movies, sums.n_outliers], dtype=np.int64)
        np.savez(handle, counts=sums.counts, expected=sums.expected, numbers=counts)
    return out.ref


def _load(ref: FileRef, ctx: Context) -> GainSums:
    with np.load(ctx.path(ref), allow_pickle=False) as stored:
        n_movies, n_outliers = (int(value) for value in stored["numbers"])
        return GainSums(stored["counts"], stored["expected"], n_movies, n_outliers)
