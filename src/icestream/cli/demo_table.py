"""How near the results of a session come to the truth of the simulated microscope it processed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from icestream.cli.console import make_table
from icestream.counting import counted
from icestream.flow.declaration import resolve_ref
from icestream.flow.storage import Session
from icestream.io.blocks import from_block
from icestream.io.image import read_stack
from icestream.microscope.score import PickScore, defocus_error_ang, match_picks, motion_error_px
from icestream.microscope.score_classes import prepare_projections, score_class_average
from icestream.microscope.truth import ExposureTruth, SessionTruth, load_exposure_truth, load_session_truth
from icestream.observe.queries import SessionView, StoredRecord, open_view

PICK_RADIUS_DIAMETERS = 0.3
"""A pick this near to a particle is the particle."""

_CLASSES_SCORED = 5


@dataclass(frozen=True)
class Measure:
    """One line of the table; ``value`` is NaN where there was nothing to measure."""

    name: str
    value: float
    unit: str
    over: str
    """What it was measured on."""


def measure(session: Session, microscope: Path) -> list[Measure]:
    """Compare what ``session`` found with the truth below the folder ``microscope``."""
    truth = load_session_truth(microscope)
    with open_view(session) as view:
        truths = _truth_by_unit(view, truth, microscope)
        return [
            *_measure_broken(view, truth),
            _measure_motion(view, truths),
            _measure_defocus(view, truths),
            *_measure_picks(view, truths, truth.phantom_diameter_ang),
            *_measure_classes(view, session, truth, microscope),
        ]


def print_measures(measures: list[Measure], console: Console) -> None:
    """Print the table."""
    table = make_table("results compared with the truth", "value", "unit", "measured on", right=("value",))
    for line in measures:
        value = "nothing to measure" if math.isnan(line.value) else f"{line.value:.3g}" if line.unit else f"{line.value:.3f}"
        table.add_row(line.name, value, line.unit, line.over)
    console.print(table)


def _truth_by_unit(view: SessionView, truth: SessionTruth, microscope: Path) -> dict[str, ExposureTruth]:
    """Return the truth of every sound movie that the session has taken."""
    known = {exposure.file: exposure for exposure in (load_exposure_truth(microscope, name) for name in truth.exposures)}
    found = {}
    for movie in view.records("movies"):
        exposure = known.get(f"movies/{movie.record['file'].partition(':')[2]}")
        if exposure is not None and exposure.fault is None:
            found[movie.unit] = exposure
    return found


def _pairs(view: SessionView, step: str, truths: dict[str, ExposureTruth]) -> Iterator[tuple[StoredRecord, ExposureTruth]]:
    return ((stored, truths[stored.unit]) for stored in view.records(step) if stored.unit in truths)


def _measure_broken(view: SessionView, truth: SessionTruth) -> list[Measure]:
    broken = len(truth.faults)
    reported = len({item.unit for item in view.failed()} | {item.unit for item in view.rejected()})
    processed = sum(step.counts.item for step in view.steps() if step.name == "particles")
    over = f"{counted(len(truth.exposures), 'movie')}, {broken} of them broken on purpose"
    return [
        Measure("movies processed to particles", processed, "movies", over),
        Measure("movies set aside or failed", reported, "movies", over),
    ]


def _measure_motion(view: SessionView, truths: dict[str, ExposureTruth]) -> Measure:
    errors = [
        motion_error_px(np.array(stored.record["motion"]["global_yx_px"]), truth)
        for stored, truth in _pairs(view, "aligned", truths)
        if stored.record.get("motion") is not None
    ]
    return Measure("global motion, rms error of a track, median", _median(errors), "px", counted(len(errors), "movie"))


def _measure_defocus(view: SessionView, truths: dict[str, ExposureTruth]) -> Measure:
    errors = [
        abs(defocus_error_ang(stored.record["defocus_u_ang"], stored.record["defocus_v_ang"], truth))
        for stored, truth in _pairs(view, "ctf", truths)
    ]
    return Measure("defocus, absolute error, median", _median(errors), "Å", counted(len(errors), "micrograph"))


def _measure_picks(view: SessionView, truths: dict[str, ExposureTruth], diameter_ang: float) -> list[Measure]:
    scores = [
        match_picks(
            _positions(stored.block), truth.positions_yx_px, radius_px=PICK_RADIUS_DIAMETERS * diameter_ang / truth.pixel_size_ang
        )
        for stored, truth in _pairs(view, "picks", truths)
    ]
    pixels = [truth.pixel_size_ang for _, truth in _pairs(view, "picks", truths)]
    distance_ang = [s.distance_px * pixel for s, pixel in zip(scores, pixels, strict=True)]
    whole = PickScore(
        sum(s.n_found for s in scores),
        sum(s.n_true for s in scores),
        np.concatenate([np.empty(0), *(s.distance_px for s in scores)]),
    )
    over = f"{whole.n_found} picks, {whole.n_true} particles, within {PICK_RADIUS_DIAMETERS:g} diameters"
    return [
        Measure("picking, precision", whole.precision, "", over),
        Measure("picking, recall", whole.recall, "", over),
        Measure("picking, F1", whole.f1, "", over),
        Measure(
            "picking, distance from the centre, median", _median(np.concatenate([np.empty(0), *distance_ang]).tolist()), "Å", over
        ),
    ]


def _positions(block: bytes | None) -> Any:
    if block is None:
        return np.empty((0, 2))
    table = from_block(block)
    return np.stack([table["y_px"], table["x_px"]], axis=1)  # (n, 2)


def _measure_classes(view: SessionView, session: Session, truth: SessionTruth, microscope: Path) -> list[Measure]:
    newest = next((snapshot for snapshot in view.snapshots("classes", limit=1) if snapshot.record is not None), None)
    if newest is None or newest.record is None or newest.record["count"] == 0:
        nothing = "there are no class averages"
        return [Measure("class averages, resolution at FRC 0.5, median", float("nan"), "Å", nothing)]
    record = newest.record
    largest = sorted((c for c in record["classes"] if c["count"] > 0), key=lambda c: -c["count"])[:_CLASSES_SCORED]
    averages = read_stack(resolve_ref(session.roots, record["stack"]))  # (n, h, w)
    index = {c["id"]: position for position, c in enumerate(record["classes"])}
    reference = prepare_projections(
        read_stack(microscope / truth.phantom_file),
        phantom_pixel_size_ang=truth.phantom_pixel_size_ang,
        pixel_size_ang=truth.settings.pixel_size_ang * record["bin"],
        diameter_ang=truth.phantom_diameter_ang,
        box_px=record["box_px"],
    )
    resolutions = [score_class_average(averages[index[c["id"]]], reference).resolution_ang for c in largest]
    over = f"the {len(largest)} largest of {len(record['classes'])} classes, {record['count']} particles"
    return [
        Measure("class averages, resolution at FRC 0.5, median", _median(resolutions), "Å", over),
        Measure("class averages, resolution at FRC 0.5, best", min(resolutions, default=float("nan")), "Å", over),
    ]


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else float("nan")
