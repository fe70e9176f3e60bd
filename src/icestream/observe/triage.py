"""The part of the report about what micrographs show."""

from icestream.observe.answers import StepSummary
from icestream.observe.measures import MeasuredStep, Newest, make_measure, read_series, scale_series
from icestream.observe.pictures import Album
from icestream.observe.queries import SessionView

_SHOWN = (("Score", "score", 1.0, ""), ("Dark objects", "dark_share", 100.0, "%"), ("Film", "film_share", 100.0, "%"))


def measure_quality(view: SessionView, step: StepSummary, album: Album) -> MeasuredStep | None:
    """Show how likely micrographs are worth keeping, what covers them, and the newest with what was found on it."""
    found = read_series(view, step, ("score", "dark_share", "signal_to_noise"))
    if found is None:
        return None
    measures = (
        make_measure(found["score"], label="Probability of being worth keeping", unit=""),
        make_measure(scale_series(found["dark_share"], 100.0), label="Share under dark objects", unit="%"),
        make_measure(found["signal_to_noise"], label="Signal to noise", unit=""),
    )
    stored = next(view.records(step.name, newest_first=True, limit=1), None)
    newest = None
    if stored is not None:
        record = stored.record
        numbers = tuple((label, factor * record[name], unit) for label, name, factor, unit in _SHOWN)
        picture = album.embed(record["picture"]) if record.get("picture") else None
        note = f"{record['kind'].replace('_', ' ')}: {record['reason']}. Film is blue, dark objects are red, Bragg spots yellow."
        newest = Newest(stored.name, numbers, picture, note=note)
    drawn = tuple(measure for measure in measures if measure is not None)
    return MeasuredStep("Quality", step, drawn, newest) if drawn else None
