"""The parts of the report about quality checks: dose, gain, tilt, and how two motions or two estimates of the CTF agree."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from icestream.observe.answers import StepSummary, StoredSnapshot
from icestream.observe.charts import draw_scatter, draw_series
from icestream.observe.measures import Measure, MeasuredStep, Newest, Plot, make_measure, mean_defocus, read_series, scale_series
from icestream.observe.pictures import Album
from icestream.observe.queries import SessionView
from icestream.observe.sampling import Series

_MOST_VERSIONS = 200
_RATIOS = (("spread_ratio", "97.5 % over 2.5 % quantile"), ("peak_ratio", "Largest over 97.5 % quantile"))
_UNEVEN = (("total", "Pixels"), ("rows", "Rows"), ("columns", "Columns"), ("blocks", "Blocks"))


def measure_dose(view: SessionView, step: StepSummary, steps: Sequence[StepSummary]) -> MeasuredStep | None:
    """Show the counts of every movie, and what is usual."""
    found = read_series(view, step, ("counts_per_px_frame", "drift", "zero_fraction"))
    if found is None:
        return None
    measures = (
        make_measure(found["counts_per_px_frame"], label="Counts in a pixel and frame", unit=""),
        make_measure(scale_series(found["drift"], 100.0), label="Change of the dose during the movie", unit="%"),
        make_measure(scale_series(found["zero_fraction"], 100.0), label="Pixels that counted nothing", unit="%"),
    )
    drawn = tuple(measure for measure in measures if measure is not None)
    plots = tuple(plot for one in steps if (plot := _usual_dose(view, one)) is not None)
    return MeasuredStep("Dose", step, drawn, None, plots) if drawn else None


def _usual_dose(view: SessionView, step: StepSummary) -> Plot | None:
    record = _newest(view, step) if record_type(step) == "DoseReference" else None
    if record is None:
        return None
    share = record.get("deviating_share")
    numbers = (
        ("Counts in a pixel and frame", record["counts_per_px_frame"], ""),
        ("Dose of a frame", record.get("dose_per_frame_e_per_ang2"), "e/Å²"),
        ("Movies behind it", float(record["n_samples"]), ""),
        ("Followed a change", float(record["n_updates"]), "times"),
        ("Far from it, last window", None if share is None else 100.0 * share, "%"),
    )
    said = {"acquisition": "The dose of the session, which the movies confirm.", "median": "The median of what was measured."}
    return Plot("Usual dose", step.label, numbers, caption=said[record["source"]], warning=record.get("warning") or "")


def measure_gain(view: SessionView, step: StepSummary, album: Album) -> MeasuredStep | None:
    """Show what the movies tell of the gain: its noise, and what is left after the gain that was given."""
    versions = [one for one in reversed(view.snapshots(step.name, limit=_MOST_VERSIONS)) if (one.record or {}).get("monitor")]
    if not versions:
        return None
    found = (
        _by_version(versions, ("noise",), 100.0, "Noise of the learnt gain", "%"),
        _by_version(versions, ("residual", "total"), 100.0, "Unevenness after the given gain", "%"),
        _by_version(versions, ("residual", "spread_ratio"), 1.0, "97.5 % over 2.5 % quantile after the given gain", ""),
        _by_version(versions, ("residual", "peak_ratio"), 1.0, "Largest pixel over 97.5 % quantile after the given gain", ""),
        _by_version(versions, ("slope",), 1.0, "Share of the given gain in the movies", ""),
    )
    record = versions[-1].record or {}
    return MeasuredStep("Gain", step, tuple(one for one in found if one is not None), None, _gain_plots(record["monitor"], album))


def _gain_plots(monitor: dict[str, Any], album: Album) -> tuple[Plot, ...]:
    counted = (("Movies", float(monitor["n_movies"]), ""), ("Defects", float(monitor["n_defects"]), "pixels"))
    skipped = f"{monitor['n_skipped']} movies were left out; the last: {monitor['skipped']}" if monitor.get("skipped") else ""
    plots = [_gain_plot("Learnt gain", monitor.get("raw"), monitor.get("picture"), album, counted, skipped)]
    if monitor.get("residual") or monitor.get("warning"):
        warning = monitor.get("warning") or ""
        plots.append(
            _gain_plot("Left after the given gain", monitor.get("residual"), monitor.get("residual_picture"), album, (), warning)
        )
    return tuple(plots)


def _gain_plot(
    title: str,
    uneven: dict[str, float] | None,
    picture: str | None,
    album: Album,
    counted: tuple[tuple[str, float | None, str], ...],
    note: str,
) -> Plot:
    numbers: tuple[tuple[str, float | None, str], ...] = ()
    if uneven:
        numbers = tuple((label, 100.0 * uneven[name], "%") for name, label in _UNEVEN)
        numbers += tuple((label, uneven[name], "") for name, label in _RATIOS)
    shown = album.embed(picture) if picture else None
    return Plot(title, "how uneven" if uneven else "", numbers + counted, picture=shown, caption="", warning=note)


def _by_version(
    versions: Sequence[StoredSnapshot], path: tuple[str, ...], factor: float, label: str, unit: str
) -> Measure | None:
    numbers, values = [], []
    for one in versions:
        value: Any = (one.record or {})["monitor"]
        for name in path:
            value = (value or {}).get(name)
        if value is not None:
            numbers.append(one.version)
            values.append(float(value) * factor)
    if not values:
        return None
    series = Series(tuple(numbers), tuple(values))
    chart = draw_series(series, label=f"{label} of each version", word="version ") if len(values) > 1 else Markup("")
    return Measure(label, unit, sorted(values)[len(values) // 2], values[-1], len(values), 1, chart, Markup(""))


def measure_tilt(view: SessionView, step: StepSummary, album: Album) -> MeasuredStep | None:
    """Show how alike the spectra over each micrograph are."""
    found = read_series(view, step, ("mean_correlation", "std_correlation", "significance"))
    if found is None:
        return None
    measures = (
        make_measure(found["mean_correlation"], label="Likeness of the spectra over the field", unit=""),
        make_measure(found["std_correlation"], label="Spread of the likeness", unit=""),
        make_measure(found["significance"], label="Strength of the rings", unit="σ"),
    )
    drawn = tuple(measure for measure in measures if measure is not None)
    known = (("Rings", "significance", "σ"), ("Mean", "mean_correlation", ""), ("Spread", "std_correlation", ""))
    newest = _describe_newest(view, step, known, album=album, note="The spectra of the windows, where they lie in the image.")
    return MeasuredStep("Tilt", step, drawn, newest) if drawn else None


def measure_agreement(view: SessionView, step: StepSummary, *, pixel_size_ang: float | None) -> MeasuredStep | None:
    """Show how far two motion corrections of each movie agree."""
    found = read_series(view, step, ("rms_px", "field_rms_px", "correlation"))
    if found is None:
        return None
    scale, unit = (pixel_size_ang, "Å") if pixel_size_ang else (1.0, "px")
    measures = (
        make_measure(scale_series(found["rms_px"], scale), label="Distance of the two tracks", unit=unit),
        make_measure(scale_series(found["field_rms_px"], scale), label="Distance over the field", unit=unit),
        make_measure(found["correlation"], label="Correlation of the two tracks", unit=""),
    )
    drawn = tuple(measure for measure in measures if measure is not None)
    fields = (("Rms", "rms_px"), ("Largest", "largest_px"), ("First path", "path_px"), ("Second path", "second_path_px"))
    newest = _describe_newest(view, step, tuple((label, name, unit) for label, name in fields), scale=scale)
    return MeasuredStep("Two motions", step, drawn, newest) if drawn else None


def measure_ctf_agreement(view: SessionView, step: StepSummary) -> MeasuredStep | None:
    """Show how far two estimates of the CTF of each micrograph agree, kept ones and rejected ones alike."""
    found = read_series(view, step, ("agreement_ang", "defocus_difference_ang", "least_confidence"))
    if found is None:
        return None
    measures = (
        make_measure(found["agreement_ang"], label="Resolution to which the two CTFs agree", unit="Å"),
        make_measure(found["defocus_difference_ang"], label="Defocus, apart", unit="Å"),
        make_measure(found["least_confidence"], label="Confidence of the less sure one", unit=""),
    )
    drawn = tuple(measure for measure in measures if measure is not None)
    known = (("Agree to", "agreement_ang", "Å"), ("Defocus, apart", "defocus_difference_ang", "Å"))
    newest = _describe_newest(view, step, (*known, ("Astigmatism, apart", "astigmatism_difference_ang", "Å")))
    return MeasuredStep("CTF agreement", step, drawn, newest) if drawn else None


def measure_local_ctf(view: SessionView, step: StepSummary, album: Album) -> MeasuredStep | None:
    """Show the slope of each specimen, its thickness where it shows, and the rings of ice."""
    found = read_series(view, step, ("range_ang", "tilt_deg", "thickness_ang", "ice_ring_significance"))
    if found is None:
        return None
    measures = (
        make_measure(found["range_ang"], label="Defocus over the field, largest less smallest", unit="Å"),
        make_measure(found["tilt_deg"], label="Tilt, where there is one", unit="°"),
        make_measure(found["thickness_ang"], label="Thickness, where it shows", unit="Å"),
        make_measure(found["ice_ring_significance"], label="Ring of crystalline ice", unit="σ"),
    )
    drawn = tuple(measure for measure in measures if measure is not None)
    known = (("Tilt", "tilt_deg", "°"), ("Error of the defocus", "error_ang", "Å"), ("Thickness", "thickness_ang", "Å"))
    note = "Left the surface of defocus, right what each window says; red is more."
    newest = _describe_newest(view, step, known, album=album, note=note)
    return MeasuredStep("Local defocus", step, drawn, newest) if drawn else None


def _describe_newest(
    view: SessionView,
    step: StepSummary,
    known: tuple[tuple[str, str, str], ...],
    *,
    scale: float = 1.0,
    album: Album | None = None,
    note: str = "",
) -> Newest | None:
    """Return the newest record of a step: those of its fields that are ``known`` (label, name, unit), and its picture."""
    stored = next(view.records(step.name, newest_first=True, limit=1), None)
    if stored is None:
        return None
    record = stored.record
    numbers = tuple((label, record[name] * scale, unit) for label, name, unit in known if record.get(name) is not None)
    picture = album.embed(record["picture"]) if album is not None and record.get("picture") else None
    return Newest(stored.name, numbers, picture, note=note)


def compare_ctfs(view: SessionView, steps: Sequence[StepSummary]) -> list[MeasuredStep]:
    """Show the defocus of one estimate against that of another, for each two that a step of the workflow joins."""
    fits = {step.name: step for step in steps if record_type(step) == "CtfFit"}
    pairs = {}
    for spec in view.session.document.steps.values():
        ends = (spec.inputs.get("ctf"), spec.inputs.get("second"))
        if isinstance(ends[0], str) and isinstance(ends[1], str) and ends[0] in fits and ends[1] in fits:
            pairs[ends[0], ends[1]] = (fits[ends[0]], fits[ends[1]])
    return [found for first, second in pairs.values() if (found := _compare(view, first, second)) is not None]


def _compare(view: SessionView, first: StepSummary, second: StepSummary) -> MeasuredStep | None:
    paths = ("defocus_u_ang", "defocus_v_ang")
    one, other = read_series(view, first, paths), read_series(view, second, paths)
    if one is None or other is None:
        return None
    ours, theirs = mean_defocus(one), mean_defocus(other)
    known = dict(zip(theirs.exposures, theirs.values, strict=True))
    both = [(n, value, known[n]) for n, value in zip(ours.exposures, ours.values, strict=True) if n in known]
    if not both:
        return None
    numbers = tuple(n for n, _, _ in both)
    apart = Series(numbers, tuple((a - b) * 1e4 for _, a, b in both), ours.stride)
    chart = draw_scatter(
        [a for _, a, _ in both],
        [b for _, _, b in both],
        unit="µm",
        label=f"Defocus of {second.label} against that of {first.label}",
    )
    caption = f"Across {first.label}, upwards {second.label}; equal on the broken line."
    plot = Plot("Defocus of one against the other", "µm", (), chart=chart, caption=caption)
    measure = make_measure(apart, label="Defocus, first less second", unit="Å")
    heading = f"{first.label} and {second.label}"
    return MeasuredStep("Two CTFs", first, () if measure is None else (measure,), None, (plot,), heading)


def record_type(step: StepSummary) -> str | None:
    """Return the name of the records that a step makes, without the module that a step's own records have."""
    return None if (name := step.records.get("out")) is None else name.rpartition(":")[2]


def _newest(view: SessionView, step: StepSummary) -> dict[str, Any] | None:
    newest = next(iter(view.snapshots(step.name, limit=1)), None)
    return None if newest is None else newest.record
