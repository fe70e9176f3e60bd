"""Particles that were picked off their centres are centred by a classification that knows nothing of the truth."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.flow import Exposure
from icestream.io.blocks import from_block
from icestream.io.image import write_mrc
from icestream.io.particles import particles_table
from icestream.io.picks import make_picks, table_of_picks
from icestream.records import Acquisition, ClassAssignments, Micrograph
from icestream.steps.classify2d.params import Classify2DParams
from icestream.steps.classify2d.streaming import Classify2D
from icestream.steps.particles.coordinates import (
    CentreParams,
    ExtractCoordinatesParams,
    centre_particles,
    extract_coordinates,
)
from icestream.steps.particles.extract import ExtractParams, extract_particles
from icestream.testing.context import StepBench

PIXEL_ANG, SIDE, GRID = 4.0, 640, 9
BLOBS = np.array([[-9.0, -4, 1.5], [-3, -6, 1.0], [4, -5, 0.7], [8, 2, 1.6], [3, 7, 0.5]])
"""Position and weight, in pixels: a shape that looks like itself in one turn only, its centre of mass off the origin."""
ACQUISITION = Acquisition(pixel_size_ang=PIXEL_ANG, voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.1)
PARAMS = Classify2DParams(
    n_classes=1, limit_ang=12.0, max_shift_ang=24.0, first_iterations=12, anneal_iterations=6, first_particles=20
)


def draw(folder: Path) -> tuple[Micrograph, NDArray[np.float64]]:
    """Write a micrograph of turned copies without CTF, dark; return it and the true centres of mass."""
    rng = np.random.default_rng(4)
    along = (np.arange(GRID) + 0.5) * SIDE / GRID
    places = np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1).reshape(-1, 2) + rng.uniform(-4, 4, (GRID**2, 2))
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    image, centres = rng.normal(0, 0.6, (SIDE, SIDE)), []
    for place, turn in zip(places, rng.uniform(0, 2 * np.pi, len(places)), strict=True):
        cosine, sine = np.cos(turn), np.sin(turn)
        dots = np.array([[bx * sine + by * cosine, bx * cosine - by * sine] for bx, by, _ in BLOBS]) + place
        for (row, column), weight in zip(dots, BLOBS[:, 2], strict=True):
            near = (slice(max(0, int(row) - 9), int(row) + 10), slice(max(0, int(column) - 9), int(column) + 10))
            image[near] -= weight * np.exp(-((y[near] - row) ** 2 + (x[near] - column) ** 2) / 6)
        centres.append(BLOBS[:, 2] @ dots / BLOBS[:, 2].sum())
    write_mrc(folder / "mic.mrc", image.astype(np.float32), pixel_size_ang=PIXEL_ANG)
    return Micrograph(image="session:mic.mrc", height_px=SIDE, width_px=SIDE, bin=1.0), np.array(centres)


def test_a_classification_brings_particles_to_their_centre_of_mass(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    micrograph, truth = draw(tmp_path)
    off = np.random.default_rng(5).uniform(-4, 4, truth.shape)
    picks = make_picks(table_of_picks(truth + off, np.ones(len(truth))), diameter_ang=100.0)
    params = ExtractParams(box_px=48, virtual=True)
    particles = extract_particles(micrograph, picks, None, params, ACQUISITION, bench)
    bench.closing, exposure = True, Exposure("a" * 32, "mic")
    step = Classify2D()
    update = step.add(step.start(PARAMS, bench), [exposure], [particles], acquisition=[ACQUISITION], params=PARAMS, ctx=bench)
    classes = step.emit(update.state, PARAMS, bench)
    assignments = update.assignments[exposure.id]
    assert isinstance(assignments, ClassAssignments)
    centred = centre_particles(micrograph, particles, assignments, classes, CentreParams(), bench)
    table = particles_table(centred)
    left_px = np.stack([table["y_px"], table["x_px"]], axis=1) - truth[table["pid"]]
    before_px = np.hypot(*off.T)
    assert np.median(before_px) > 2.5
    assert np.median(np.hypot(*left_px.T)) < 0.55  # noise of the single particles
    assert np.hypot(*left_px.mean(axis=0)) < 0.2
    coordinates = from_block(
        extract_coordinates(micrograph, particles, assignments, classes, ExtractCoordinatesParams(), bench).block
    )
    same = np.isin(coordinates["pid"], table["pid"])
    assert np.allclose(coordinates["y_px"][same], table["y_px"], atol=1e-3)
    assert coordinates["x_px"][same] == pytest.approx(table["x_px"], abs=1e-3)
