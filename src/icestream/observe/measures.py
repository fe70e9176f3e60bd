"""The parts of the report that show how values go along the session: CTF, motion, picks."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from icestream.observe.answers import StepSummary, StoredRecord
from icestream.observe.charts import draw_ctf_profile, draw_histogram, draw_series, draw_trajectory
from icestream.observe.pictures import Album, Picture
from icestream.observe.queries import SessionView
from icestream.observe.sampling import Series, read_fields, read_weights


@dataclass(frozen=True)
class Measure:
    """One value of every exposure: its median and newest, and how it goes and spreads."""

    label: str
    unit: str
    median: float
    newest: float
    n_shown: int
    stride: int
    series: Markup
    histogram: Markup


@dataclass(frozen=True)
class Newest:
    """The newest exposure of a step, drawn."""

    name: str
    numbers: tuple[tuple[str, float | None, str], ...]
    picture: Picture | None = None
    chart: Markup | None = None
    chart_caption: str = ""
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """Something of the whole step, drawn or in numbers."""

    title: str
    subtitle: str
    numbers: tuple[tuple[str, float | None, str], ...]
    picture: Picture | None = None
    chart: Markup | None = None
    caption: str = ""
    warning: str = ""


@dataclass(frozen=True)
class MeasuredStep:
    """What the report shows of one step that measures."""

    title: str
    step: StepSummary
    measures: tuple[Measure, ...]
    newest: Newest | None
    plots: tuple[Plot, ...] = ()
    heading: str | None = None
    """What is said beside the title instead of the name of the step."""


def make_measure(series: Series, *, label: str, unit: str) -> Measure | None:
    """Draw one value; None where there is nothing to draw."""
    if not series.values:
        return None
    return Measure(
        label=label,
        unit=unit,
        median=statistics.median(series.values),
        newest=series.values[-1],
        n_shown=len(series.values),
        stride=series.stride,
        series=draw_series(series, label=f"{label} ({unit}) of each exposure, in order of arrival"),
        histogram=draw_histogram(series.values, label=f"How often which {label.lower()} occurs", unit=unit),
    )


def measure_ctf(view: SessionView, step: StepSummary, album: Album) -> MeasuredStep | None:
    """Show the CTF fits of one step: resolution, defocus, astigmatism, and the phase shift where there is one."""
    paths = ("defocus_u_ang", "defocus_v_ang", "resolution_ang", "phase_shift_deg")
    found = read_series(view, step, paths)
    if found is None:
        return None
    major, minor = found["defocus_u_ang"], found["defocus_v_ang"]
    measures = [
        make_measure(found["resolution_ang"], label="CTF resolution", unit="Å"),
        make_measure(mean_defocus(found), label="Defocus", unit="µm"),
        make_measure(_combine(major, minor, lambda u, v: abs(u - v)), label="Astigmatism", unit="Å"),
    ]
    if any(found["phase_shift_deg"].values):
        measures.append(make_measure(found["phase_shift_deg"], label="Phase shift", unit="°"))
    newest = next(view.records(step.name, newest_first=True, limit=1), None)
    return _measured("CTF", step, measures, _newest_ctf(newest, album))


def measure_motion(view: SessionView, step: StepSummary, *, pixel_size_ang: float | None) -> MeasuredStep | None:
    """Show how far the specimen moved: over the whole movie, and in its first quarter."""
    found = read_series(view, step, ("motion.total_px", "motion.early_px", "frames.gain_residual"))
    if found is None or not found["motion.total_px"].values:
        return None
    scale, unit = (pixel_size_ang, "Å") if pixel_size_ang else (1.0, "px")
    measures = [
        make_measure(scale_series(found["motion.total_px"], scale), label="Total motion", unit=unit),
        make_measure(scale_series(found["motion.early_px"], scale), label="Early motion", unit=unit),
    ]
    newest = next(view.records(step.name, newest_first=True, limit=1), None)
    if newest is not None and not _has_learnt_gain(newest):
        measures.append(
            make_measure(scale_series(found["frames.gain_residual"], 100.0), label="Gain left in the movie", unit="%")
        )
    return _measured("Motion", step, measures, _newest_motion(newest, scale, unit))


def _has_learnt_gain(stored: StoredRecord) -> bool:
    """Tell whether the gain came from this session: what is left of it says nothing for a movie that it was learnt from."""
    gain = (stored.record.get("frames") or {}).get("gain")
    return gain is not None and str(gain).startswith("session:")


def measure_picks(view: SessionView, step: StepSummary) -> MeasuredStep | None:
    """Show how many particles were picked on each micrograph."""
    with view.reading() as connection:
        if connection is None or step.revision_id is None:
            return None
        series = read_weights(connection, step.revision_id)
    return _measured("Picking", step, [make_measure(series, label="Particles per micrograph", unit="particles")], None)


def read_series(view: SessionView, step: StepSummary, paths: tuple[str, ...]) -> dict[str, Series] | None:
    """Return path → series of what a step has stored; None before its first run."""
    with view.reading() as connection:
        if connection is None or step.revision_id is None:
            return None
        return read_fields(connection, step.revision_id, paths)


def _measured(title: str, step: StepSummary, measures: list[Measure | None], newest: Newest | None) -> MeasuredStep | None:
    drawn = tuple(measure for measure in measures if measure is not None)
    return MeasuredStep(title, step, drawn, newest) if drawn else None


def _combine(first: Series, second: Series, value_of: Callable[[float, float], float]) -> Series:
    values = tuple(value_of(a, b) for a, b in zip(first.values, second.values, strict=True))
    return Series(first.exposures, values, first.stride)


def mean_defocus(found: dict[str, Series]) -> Series:
    """Return the mean of both defocus values in µm."""
    return _combine(found["defocus_u_ang"], found["defocus_v_ang"], lambda u, v: (u + v) / 2 / 1e4)


def scale_series(series: Series, factor: float) -> Series:
    """Return a series in another unit."""
    return Series(series.exposures, tuple(value * factor for value in series.values), series.stride)


def _newest_ctf(stored: StoredRecord | None, album: Album) -> Newest | None:
    if stored is None:
        return None
    fit = stored.record
    chart = None
    curves = fit.get("frequency_per_ang", []), fit.get("profile", []), fit.get("profile_fit", [])
    if len(curves[0]) > 1 and len(curves[0]) == len(curves[1]) == len(curves[2]):
        chart = draw_ctf_profile(*curves, resolution_ang=fit["resolution_ang"], label=f"Radial profile of {stored.name}")
    numbers = (
        ("Defocus", (fit["defocus_u_ang"] + fit["defocus_v_ang"]) / 2e4, "µm"),
        ("Astigmatism", abs(fit["defocus_u_ang"] - fit["defocus_v_ang"]), "Å"),
        ("Resolution", fit["resolution_ang"], "Å"),
        ("Fit score", fit["score"], ""),
    )
    picture = album.embed(fit["spectrum"]) if fit.get("spectrum") else None
    caption = "Spectrum profile (grey) and fit, against spatial frequency; the mark is where they stop to agree"
    return Newest(stored.name, numbers, picture, chart, caption)


def _newest_motion(stored: StoredRecord | None, scale: float, unit: str) -> Newest | None:
    motion = stored.record.get("motion") if stored else None
    if stored is None or not motion or len(motion["global_yx_px"]) < 2:
        return None
    path = [(y * scale, x * scale) for y, x in motion["global_yx_px"]]
    numbers = (
        ("Total", motion["total_px"] * scale, unit),
        ("Early", motion["early_px"] * scale, unit),
        ("Frames", float(len(path)), "frames"),
    )
    chart = draw_trajectory(path, unit=unit, label=f"Path of the specimen in {stored.name}")
    caption = "Path of the specimen; the ring is the first frame"
    said = (motion.get("note"), (stored.record.get("frames") or {}).get("gain_note"), stored.record.get("dose_note"))
    note = "".join(f". {text[0].upper()}{text[1:]}" for text in said if text)
    return Newest(stored.name, numbers, None, chart, caption, note)
