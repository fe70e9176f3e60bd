"""Watching the dose: every movie against what this session's movies have."""

from collections.abc import Sequence
from statistics import median
from typing import Literal

from icestream.algorithms.motion.movie_dose import measure_counts
from icestream.flow import (
    Accumulator,
    Context,
    Exposure,
    Field,
    ItemError,
    Params,
    Progress,
    Update,
    Verdict,
    before,
    keep,
    reject,
    step,
)
from icestream.io.movie import open_movie
from icestream.records import Acquisition, DoseReference, Movie, MovieDose, MovieShape, Record
from icestream.steps.movies.usual_movie import differences, most_usual

_EER_FRACTIONS = 40
_NO_BEAM = 0.02
_FIXED_DEVIATION = 0.05
_SPREADS = 5.0
_LARGEST_LEARNED = 0.25
_FEWEST_FOR_SPREAD = 5
_LEARNED = f"unset: {_SPREADS:g} times the spread of the session's movies, {_FIXED_DEVIATION:.0%} to {_LARGEST_LEARNED:.0%}"


class DoseReferenceParams(Params):
    """From how many movies the reference is made, and when it changes."""

    n_samples: int = Field(20, ge=1, le=500, description="Movies whose median is the reference; all others wait for them")
    acquisition_tolerance: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="If the median is this close to the dose of the session, that dose is the reference permanently",
    )
    rule: Literal["follow", "frozen"] = Field(
        "follow", description="A lasting change becomes the new reference, or the first reference stays"
    )
    window: int = Field(50, ge=2, le=500, description="Movies examined together for a lasting change")
    max_deviation: float | None = Field(
        None,
        gt=0,
        lt=1,
        description=f"A movie further from the reference than this deviates (a fraction); {_LEARNED}",
        json_schema_extra=before(4, _FIXED_DEVIATION),
    )
    max_deviating_share: float = Field(0.3, gt=0, lt=1, description="A change is lasting if more of a window than this deviates")


class DoseCheckParams(Params):
    """What a movie's counts must be like; a criterion that is unset is not applied."""

    max_deviation: float | None = Field(
        None,
        gt=0,
        lt=1,
        description=f"Largest distance from the reference (a fraction); {_LEARNED}",
        json_schema_extra=before(5, _FIXED_DEVIATION),
    )
    same_shape: bool = Field(
        True,
        description="The movie must have the size, format, number of frames, and, where header or sidecar state them, the pixel "
        "size, voltage and spherical aberration of most movies",
    )
    max_zero_fraction: float | None = Field(None, ge=0, le=1, description="Largest share of pixels that counted nothing")
    max_drift: float | None = Field(None, gt=0, description="Largest change of the mean during the movie (a fraction)")


class DoseReferenceState(Record):
    """What `DoseReferences` remembers: the first counts, and those of the window that is not yet full."""

    samples: list[float] = Field(default_factory=list)
    window: list[float] = Field(default_factory=list)
    shapes: list[MovieShape] = Field(default_factory=list, description="Of the samples until they are full, then of the window")
    shape: MovieShape | None = None
    reference: float | None = None
    spread: float | None = None
    pixel_size_ang: float | None = None
    source: Literal["acquisition", "median"] = "median"
    n_measured: int = 0
    n_samples: int = 0
    n_updates: int = 0
    deviating_share: float | None = None
    followed: bool = False


@step.map("measure_dose", version=4)
def measure_dose(movie: Movie, ctx: Context) -> MovieDose:
    """Measure how many counts the pixels of a movie have, as the camera stored them.

    Raises
    ------
    ItemError
        If the movie cannot be read, or holds too many values that are not finite.
    """
    group = max(1, round(movie.n_frames / _EER_FRACTIONS)) if movie.format == "eer" else 1
    with open_movie(ctx.path(movie.file), eer_group=group) as reader:
        counts = measure_counts(reader.frames())
        n_frames = reader.n_frames * group
        header = reader.header
    told = movie.told or Acquisition()
    return MovieDose(
        counts_per_px_frame=counts.counts_per_px / group,
        zero_fraction=counts.zero_fraction,
        drift=counts.drift,
        n_frames=n_frames,
        n_empty=counts.n_empty * group,
        n_saturated=counts.n_saturated * group,
        shape=MovieShape(
            height_px=header.height_px,
            width_px=header.width_px,
            n_frames=movie.n_frames,
            format=header.format,
            pixel_size_ang=told.pixel_size_ang if header.pixel_size_ang is None else header.pixel_size_ang,
            voltage_kv=told.voltage_kv,
            cs_mm=told.cs_mm,
        ),
    )


@step.accumulate("dose_reference", version=4, reads=("pixel_size_ang", "dose_per_frame_e_per_ang2"), memory_gb=0.1)
class DoseReferences(Accumulator[DoseReferenceState, DoseReference]):
    """Learn from the first movies of a session how many counts a movie has, and notice when that changes permanently.

    The session's own dose counts as right if the first movies confirm it, taking a count for an electron; else the median of what
    was measured is the reference. How much they differ from each other, as the ice is thicker in one place than in another, is
    learned too. Movies enter in the order of the log, so a result can be repeated.
    """

    portion = 500

    def when(self, progress: Progress, params: DoseReferenceParams) -> Verdict:
        """Wait for the first ``n_samples`` movies, then for whole windows, or the end."""
        target = params.window if progress.passed else params.n_samples
        return progress.wait_for(target, "movies")

    def start(self, params: DoseReferenceParams, ctx: Context) -> DoseReferenceState:
        """Return the state before the first movie."""
        return DoseReferenceState()

    def add(
        self,
        state: DoseReferenceState,
        exposures: Sequence[Exposure],
        dose: Sequence[MovieDose],
        acquisition: Sequence[Acquisition],
        params: DoseReferenceParams,
        ctx: Context,
    ) -> Update[DoseReferenceState]:
        """Take the counts of new movies, one by one."""
        for measured, values in zip(dose, acquisition, strict=True):
            state = state.model_copy(update={"n_measured": state.n_measured + 1, "pixel_size_ang": values.pixel_size_ang})
            if len(state.samples) < params.n_samples:
                state = _take_sample(state, measured, _expected_counts(values), params)
            else:
                state = _watch(state, measured, params)
        return Update(state)

    def emit(self, state: DoseReferenceState, params: DoseReferenceParams, ctx: Context) -> DoseReference:
        """Return the reference as it is now."""
        if state.reference is None:
            raise ItemError("no movie was measured, at least 1 is needed for a reference")
        pixel_ang = state.pixel_size_ang
        return DoseReference(
            counts_per_px_frame=state.reference,
            source=state.source,
            spread=state.spread,
            dose_per_frame_e_per_ang2=state.reference / pixel_ang**2 if pixel_ang else None,
            n_measured=state.n_measured,
            n_samples=state.n_samples,
            n_updates=state.n_updates,
            deviating_share=state.deviating_share,
            shape=state.shape,
            warning=_warn_of_change(state, params),
        )


def _warn_of_change(state: DoseReferenceState, params: DoseReferenceParams) -> str | None:
    """Say that too many movies of the last window had another dose, and what became of the reference; or None."""
    if state.deviating_share is None or state.deviating_share <= params.max_deviating_share:
        return None
    end = "has followed them" if state.followed else "stays, and dose_check sets such movies aside"
    return (
        f"{state.deviating_share:.0%} of the last {params.window} movies lay more than "
        f"{allowed_deviation(params.max_deviation, state.spread):.0%} from the "
        f"reference, allowed are {params.max_deviating_share:.0%}; it {end}"
    )


def allowed_deviation(wanted: float | None, spread: float | None) -> float:
    """Return how far from the reference a movie may be, as a fraction of it: what is wanted, or what the spread suggests."""
    if wanted is not None:
        return wanted
    return min(max(_FIXED_DEVIATION, _SPREADS * (spread or 0.0)), _LARGEST_LEARNED)


def _spread_of(counts: Sequence[float]) -> float | None:
    """Return the robust standard deviation of counts relative to their median; None of fewer than five."""
    middle = median(counts)
    if len(counts) < _FEWEST_FOR_SPREAD or not middle > 0:
        return None
    return 1.4826 * median(abs(value - middle) for value in counts) / middle


def _expected_counts(acquisition: Acquisition) -> float | None:
    """Return the counts that the dose of the session makes if a count is an electron."""
    if acquisition.pixel_size_ang is None or acquisition.dose_per_frame_e_per_ang2 is None:
        return None
    return acquisition.dose_per_frame_e_per_ang2 * acquisition.pixel_size_ang**2


def _take_sample(
    state: DoseReferenceState, measured: MovieDose, expected: float | None, params: DoseReferenceParams
) -> DoseReferenceState:
    samples = [*state.samples, measured.counts_per_px_frame]
    shapes = _with_shape(state.shapes, measured)
    middle = median(samples)
    confirmed = expected is not None and abs(middle - expected) <= params.acquisition_tolerance * expected
    return state.model_copy(
        update={
            "samples": samples,
            "n_samples": len(samples),
            "reference": expected if confirmed else middle,
            "source": "acquisition" if confirmed else "median",
            "spread": _spread_of(samples),
            "shape": most_usual(shapes),
            "shapes": shapes if len(samples) < params.n_samples else [],
        }
    )


def _with_shape(shapes: list[MovieShape], measured: MovieDose) -> list[MovieShape]:
    return shapes if measured.shape is None else [*shapes, measured.shape]


def _follow_shape(state: DoseReferenceState, shapes: list[MovieShape], params: DoseReferenceParams) -> MovieShape | None:
    """Return what most movies of a full window are like if more than some of them are unlike the usual; else the usual."""
    usual = state.shape
    if usual is None or params.rule != "follow":
        return usual
    deviation = params.max_deviation or _FIXED_DEVIATION
    unlike = sum(bool(differences(shape, usual, max_deviation=deviation)) for shape in shapes)
    return most_usual(shapes) if unlike > params.max_deviating_share * params.window else usual


def _watch(state: DoseReferenceState, measured: MovieDose, params: DoseReferenceParams) -> DoseReferenceState:
    """Add a movie to the window; when it is full, judge it and begin a new one."""
    window, shapes = [*state.window, measured.counts_per_px_frame], _with_shape(state.shapes, measured)
    reference = state.reference or 0.0
    if len(window) < params.window:
        return state.model_copy(update={"window": window, "shapes": shapes})
    limit = allowed_deviation(params.max_deviation, state.spread) * abs(reference)
    share = sum(abs(value - reference) > limit for value in window) / len(window)
    changes: dict[str, object] = {"window": [], "shapes": [], "deviating_share": share, "followed": False}
    changed = share > params.max_deviating_share
    if params.rule == "follow":  # of a lasting change only the later half is sure to be like what follows
        changes |= {"spread": _spread_of(window[len(window) // 2 :] if changed else window)}
    changes |= {"shape": _follow_shape(state, shapes, params)}
    if params.rule == "follow" and state.source == "median" and changed:
        changes |= {"reference": median(window), "n_samples": len(window), "n_updates": state.n_updates + 1, "followed": True}
    return state.model_copy(update=changes)


@step.filter("dose_check", version=5)
def check_dose(movie: Movie, dose: MovieDose, reference: DoseReference, params: DoseCheckParams) -> Verdict:  # noqa: ARG001 - the movie is passed on
    """Keep movies that are like those of this session and received their dose; a rejection names every criterion that failed.

    A movie in which single frames are empty or saturated is set aside whatever its mean is.
    """
    expected, counts = reference.counts_per_px_frame, dose.counts_per_px_frame
    limit = allowed_deviation(params.max_deviation, reference.spread)
    failures = []
    if 0 < dose.n_empty < dose.n_frames:
        failures.append(f"{dose.n_empty} of {dose.n_frames} frames are all zero, the others are not")
    if dose.n_saturated:
        failures.append(f"{dose.n_saturated} of {dose.n_frames} frames are saturated: most pixels have the largest value")
    if params.same_shape and dose.shape is not None and reference.shape is not None:
        failures += differences(dose.shape, reference.shape, max_deviation=params.max_deviation or _FIXED_DEVIATION)
    if not expected > 0:
        failures.append(f"the reference is {expected:g} counts in a pixel and frame; it must be above 0 to compare with")
    elif not abs(counts / expected - 1) <= limit:
        change = counts / expected - 1
        failures.append(
            ("no beam: " if counts < _NO_BEAM * expected else "")
            + f"{counts:.4g} counts in a pixel and frame are {change:+.1%} from the reference of {expected:.4g}, "
            f"beyond the limit of ±{limit:.1%}"
        )
    if params.max_zero_fraction is not None and not dose.zero_fraction <= params.max_zero_fraction:
        failures.append(f"{dose.zero_fraction:.1%} of the pixels counted nothing, more than {params.max_zero_fraction:.1%}")
    if params.max_drift is not None and not abs(dose.drift) <= params.max_drift:
        failures.append(f"counts changed by {dose.drift:+.1%} during the movie, beyond the limit of {params.max_drift:.1%}")
    return reject("; ".join(failures)) if failures else keep()
