"""Particles on other micrographs, moved by what a classification found: a Gaussian at a known place tells where it ended up."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.errors import ItemError
from icestream.flow import Exposure
from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.io.image import write_mrc
from icestream.io.particles import particles_table, remove_particles
from icestream.io.picks import make_picks, remove_picks, removed_table, table_of_picks
from icestream.records import (
    Acquisition,
    ClassAssignments,
    ClassAverages,
    ClassInfo,
    CtfFit,
    FrameUse,
    Micrograph,
    Particles,
)
from icestream.steps.particles.assigned import particles_key, rows_of
from icestream.steps.particles.coordinates import (
    CentreParams,
    ExtractCoordinatesParams,
    centre_particles,
    extract_again,
    extract_coordinates,
)
from icestream.steps.particles.extract import ExtractParams, extract_particles
from icestream.steps.particles.places import convert_places
from icestream.steps.particles.reading import read_particles
from icestream.testing.context import StepBench

ACQUISITION = Acquisition(pixel_size_ang=2.0, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.07)
CTF = CtfFit(defocus_u_ang=15000, defocus_v_ang=14000, astigmatism_angle_deg=20, score=0.3, resolution_ang=5)
RAW_PLACES = np.array([[80.4, 100.3], [150.8, 60.1], [200.0, 170.6], [90.2, 190.9]])
"""True centres, in raw pixels."""
PARAMS = ExtractParams(box_px=40, subpixel=True, dust_level=None, background_diameter_ang=50.0)


def draw(bench: StepBench, name: str, *, bin: int = 1, crop_px: tuple[int, int, int, int] | None = None) -> Micrograph:
    """Write a micrograph of Gaussians, dark, at the true places: binned, or of a part of the camera."""
    top, left, height, width = crop_px or (0, 0, 256, 240)
    y, x = (np.mgrid[: height // bin, : width // bin] * bin).astype(np.float64)
    image = np.random.default_rng(2).normal(0, 0.01, y.shape)
    for row, column in RAW_PLACES - (top, left):
        image -= np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 4.0**2))
    write_mrc(bench.folder / f"{name}.mrc", image.astype(np.float32), pixel_size_ang=2.0 * bin)
    use = FrameUse(movie="session:a.mrc", movie_frames=2, height_px=256, width_px=240, crop_px=crop_px)
    return Micrograph(
        image=f"session:{name}.mrc", height_px=y.shape[0], width_px=y.shape[1], bin=bin, frames=use if crop_px else None
    )


def extract(bench: StepBench, micrograph: Micrograph, off_px: Any = 0.0, **params: Any) -> Particles:
    picks = make_picks(table_of_picks(RAW_PLACES + off_px, np.ones(4)), diameter_ang=40.0)
    table = from_block(picks.block).copy()
    table["pid"] = [3, 8, 5, 11]
    given = PARAMS.model_copy(update=params)
    return extract_particles(micrograph, picks.model_copy(update={"block": to_block(table)}), CTF, given, ACQUISITION, bench)


def centres(images: NDArray[np.float32], scale: float = 1.0) -> NDArray[np.float64]:
    """Return where the Gaussians of images are, off the middle."""
    weight = np.clip(images - 0.2 * images.max(axis=(1, 2), keepdims=True), 0, None).astype(np.float64)
    offset = (np.arange(images.shape[-1]) - images.shape[-1] // 2) * scale
    total = weight.sum(axis=(1, 2))
    return np.stack([weight.sum(axis=2) @ offset, weight.sum(axis=1) @ offset], axis=1) / total[:, None]


def assign(pids: list[int], shift_yx_px: NDArray[np.float64], psi_deg: float = 0.0, class_ids: Any = 0) -> ClassAssignments:
    table = np.zeros(len(pids), dtype=dtype_of(ClassAssignments.block_columns))
    table["pid"], table["class_id"], table["psi_deg"] = pids, class_ids, psi_deg
    table["shift_y_px"], table["shift_x_px"] = shift_yx_px.T
    return ClassAssignments(count=len(pids), version=1, block=to_block(table))


@pytest.mark.parametrize("how", ["as it is", "binned", "cropped", "another box"])
def test_particles_are_cut_again_about_the_same_points(tmp_path: Path, how: str) -> None:
    bench = StepBench(tmp_path)
    particles = extract(bench, draw(bench, "first"))
    other, params, scale = draw(bench, "other"), PARAMS, 1.0
    if how == "binned":
        other, scale = draw(bench, "other", bin=2), 2.0
        params = PARAMS.model_copy(update={"box_px": 20})
    elif how == "cropped":
        other = draw(bench, "other", crop_px=(16, 10, 228, 222))
    elif how == "another box":
        params = PARAMS.model_copy(update={"box_px": 60, "scaled_box_px": 30})
        scale = 2.0
    again = extract_again(other, particles, None, params, ACQUISITION, bench)
    assert particles_table(again)["pid"].tolist() == [3, 8, 5, 11]
    assert again.bin == scale
    assert (particles_table(again)["defocus_u_ang"] == 15000).all()  # theirs, where no CTF is connected
    assert np.allclose(centres(read_particles(again, bench), scale), 0, atol=0.05)
    refit = CTF.model_copy(update={"defocus_u_ang": 16000.0})
    assert (particles_table(extract_again(other, particles, refit, params, ACQUISITION, bench))["defocus_u_ang"] == 16000).all()


def test_a_part_is_cut_again_and_boxes_at_the_border_are_counted(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    micrograph = draw(bench, "first")
    part = remove_particles(extract(bench, micrograph), {"some": np.array([True, False, False, False])})
    again = extract_again(micrograph, part, None, PARAMS.model_copy(update={"box_px": 128}), ACQUISITION, bench)
    assert particles_table(again)["pid"].tolist() == []  # all are nearer than 64 px to a border
    assert (again.n_left_out, again.stack) == (3, None)
    again = extract_again(micrograph, part, None, PARAMS.model_copy(update={"box_px": 90}), ACQUISITION, bench)
    assert particles_table(again)["pid"].tolist() == [8, 5, 11]
    assert particles_table(again)["slice"].tolist() == [0, 1, 2]


def test_old_particles_are_cut_again_from_their_own_micrograph_only(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    micrograph = draw(bench, "first")
    old = extract(bench, micrograph).model_copy(update={"cutting": None, "diameter_ang": None})
    again = extract_again(micrograph, old, None, PARAMS, ACQUISITION, bench)
    assert np.allclose(centres(read_particles(again, bench)), 0, atol=0.05)
    with pytest.raises(ItemError, match="stored by an earlier version"):
        extract_again(draw(bench, "other", bin=2), old, None, PARAMS, ACQUISITION, bench)
    with pytest.raises(ItemError, match="set box_px and background_diameter_ang"):
        extract_again(micrograph, old, None, ExtractParams(), ACQUISITION, bench)


@pytest.mark.parametrize("bin", [1, 2])
def test_coordinates_on_any_micrograph_are_those_of_the_particles(tmp_path: Path, bin: int) -> None:
    bench = StepBench(tmp_path)
    particles = extract(bench, draw(bench, "first"))
    picks = extract_coordinates(draw(bench, "other", bin=bin), particles, None, None, ExtractCoordinatesParams(), bench)
    table = from_block(picks.block)
    assert table["pid"].tolist() == [3, 8, 5, 11]
    assert picks.diameter_ang == 40.0
    assert np.allclose(np.stack([table["y_px"], table["x_px"]], axis=1) * bin, RAW_PLACES, atol=1e-3)


def test_shifts_move_coordinates_to_the_true_centres(tmp_path: Path) -> None:
    """Shifts are in pixels of the stack, here twice those of the first and the same as those of the other micrograph."""
    bench = StepBench(tmp_path)
    off = np.array([[2.5, -1.25], [0.5, 3.0], [-3.0, 0.0], [1.0, 1.0]])
    particles = extract(bench, draw(bench, "first"), off_px=off, scaled_box_px=20)
    assignments = assign([11, 5, 3], -off[[3, 2, 0]] / 2, class_ids=[1, 0, 1])
    other = draw(bench, "other", bin=2)
    picks = extract_coordinates(other, particles, assignments, None, ExtractCoordinatesParams(), bench)
    table = from_block(picks.block)
    assert table["pid"].tolist() == [3, 5, 11]
    assert np.allclose(2 * np.stack([table["y_px"], table["x_px"]], axis=1), RAW_PLACES[[0, 2, 3]], atol=1e-3)
    assert removed_table(picks)["pid"].tolist() == [8]
    one = extract_coordinates(
        other, particles, assignments, None, ExtractCoordinatesParams(class_ids=[1], apply_shifts=False), bench
    )
    table = from_block(one.block)
    assert table["pid"].tolist() == [3, 11]
    assert np.allclose(2 * np.stack([table["y_px"], table["x_px"]], axis=1), (RAW_PLACES + off)[[0, 3]], atol=1e-3)
    assert {removed.reason: removed.count for removed in one.removed} == {
        "not assigned to a class": 1,
        "of another class": 1,
        "outside of the micrograph": 0,
    }
    with pytest.raises(ItemError, match="no assignments are connected"):
        extract_coordinates(other, particles, None, None, ExtractCoordinatesParams(class_ids=[1]), bench)


def test_what_leaves_the_micrograph_is_removed(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    particles = extract(bench, draw(bench, "first"))
    cropped = draw(bench, "other", crop_px=(16, 80, 228, 142))
    picks = extract_coordinates(cropped, particles, None, None, ExtractCoordinatesParams(), bench)
    assert from_block(picks.block)["pid"].tolist() == [3, 5, 11]
    assert removed_table(picks)["pid"].tolist() == [8]


def write_averages(bench: StepBench, centre_yx_px: tuple[float, float], *, bin: float = 2.0) -> ClassAverages:
    y, x = np.mgrid[:24, :24] - 12.0
    average = np.exp(-((y - centre_yx_px[0]) ** 2 + (x - centre_yx_px[1]) ** 2) / 8)
    write_mrc(bench.folder / "classes.mrcs", np.stack([average]).astype(np.float32), pixel_size_ang=4.0)
    return ClassAverages(
        stack="session:classes.mrcs",
        picture="session:classes.png",
        count=4,
        box_px=24,
        bin=bin,
        classes=[ClassInfo(id=0, count=4)],
    )


def test_particles_are_centred_by_their_shifts_and_by_the_centre_of_their_class(tmp_path: Path) -> None:
    """The average has its particle 2 px below its middle; turned by 90° from x towards y that is 2 px to the left."""
    bench = StepBench(tmp_path)
    micrograph = draw(bench, "first")
    turned = np.array([0.0, -2.0]) * 2.0  # of the average, in raw pixels
    off = np.array([[2.5, -1.25], [0.5, 3.0], [-3.0, 0.0], [1.0, 1.0]])
    particles = extract(bench, micrograph, off_px=off)
    found = assign([3, 8, 5, 11], -off - turned, psi_deg=90.0)
    classes = write_averages(bench, (2.0, 0.0))
    centred = centre_particles(micrograph, particles, found, classes, CentreParams(), bench)
    assert particles_table(centred)["pid"].tolist() == [3, 8, 5, 11]
    assert np.allclose(centres(read_particles(centred, bench)), 0, atol=0.1)
    table = particles_table(centred)
    assert np.allclose(np.stack([table["y_px"], table["x_px"]], axis=1), RAW_PLACES, atol=0.1)
    assert centred.moved_px == pytest.approx(np.median(np.hypot(*off.T)), abs=0.1)
    without = centre_particles(micrograph, particles, found, None, CentreParams(), bench)
    assert np.allclose(centres(read_particles(without, bench)), turned, atol=0.1)
    whole = centre_particles(micrograph, particles, found, classes, CentreParams(subpixel=False), bench)
    assert np.abs(centres(read_particles(whole, bench))).max() < 0.6
    assert (particles_table(whole)["y_px"] % 1 == 0).all()


def test_particles_are_centred_as_they_were_cut(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    micrograph = draw(bench, "first")
    particles = extract(bench, micrograph, scaled_box_px=20, subpixel=False, virtual=True, premultiply=True)
    found = assign([3, 8, 5, 11], np.full((4, 2), 0.25))
    centred = centre_particles(micrograph, particles, found, None, CentreParams(), bench)
    assert (centred.box_px, centred.bin, centred.ctf_premultiplied, centred.diameter_ang) == (20, 2.0, True, 40.0)
    assert centred.is_virtual
    before, after = particles_table(particles), particles_table(centred)
    assert np.allclose(after["y_px"] - before["y_px"], 0.5)
    assert (after["defocus_u_ang"] == 15000).all()
    with pytest.raises(ItemError, match="do not say how they were cut"):
        centre_particles(draw(bench, "other", bin=2), particles, found, None, CentreParams(), bench)


def test_a_class_that_has_died_moves_nothing_more(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    micrograph = draw(bench, "first")
    particles = extract(bench, micrograph)
    found = assign([3, 8, 5, 11], np.zeros((4, 2)), class_ids=[0, 7, 0, 7])
    table = particles_table(
        centre_particles(micrograph, particles, found, write_averages(bench, (2.0, 0.0)), CentreParams(), bench)
    )
    assert np.allclose(table["y_px"] - particles_table(particles)["y_px"], [4, 0, 4, 0], atol=0.1)


def test_a_particle_without_an_assignment_stays_where_it_is(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    micrograph = draw(bench, "first")
    particles = extract(bench, micrograph)
    found = assign([5], np.array([[1.0, 2.0]]))
    centred = particles_table(centre_particles(micrograph, particles, found, None, CentreParams(), bench))
    before = particles_table(particles)
    assert (centred["y_px"] - before["y_px"]).tolist() == [0, 0, 1, 0]
    assert (centred["x_px"] - before["x_px"]).tolist() == [0, 0, 2, 0]


def test_assignments_are_found_by_the_number_of_the_particle() -> None:
    table = np.zeros(4, dtype=dtype_of(Particles.block_columns))
    table["pid"] = [9, 2, 40, 7]
    rows = rows_of(table["pid"], from_block(assign([7, 40, 1], np.zeros((3, 2)), class_ids=[5, 6, 7]).block))
    assert rows["class_id"].tolist() == [-1, -1, 6, 5]
    assert rows_of(table["pid"], from_block(assign([], np.zeros((0, 2)), class_ids=[]).block))["class_id"].tolist() == [-1] * 4


def test_finer_pixels_of_an_eer_movie_are_corners_of_those_of_the_camera() -> None:
    """The centre of a raw pixel is between the centres of its four finer ones."""
    use = FrameUse(movie="movies:a.eer", movie_frames=2, height_px=512, width_px=480, eer_group=10, eer_upsampling=2)
    fine = Micrograph(image="session:a.mrc", height_px=512, width_px=480, bin=0.5, frames=use).raw_area
    raw = Micrograph(image="session:b.mrc", height_px=256, width_px=240, bin=1.0).raw_area
    assert convert_places(np.array([[0.5, 0.5], [20.5, 40.5]]), fine, raw).tolist() == [[0, 0], [10, 20]]
    assert convert_places(np.array([[10.0, 20.0]]), raw, fine).tolist() == [[20.5, 40.5]]
    cropped = use.model_copy(update={"crop_px": (20, 40, 256, 256)})
    part = Micrograph(image="session:c.mrc", height_px=256, width_px=256, bin=0.5, frames=cropped).raw_area
    assert convert_places(np.array([[10.0, 20.0]]), raw, part).tolist() == [[0.5, 0.5]]


def test_an_exposure_without_particles_goes_through(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    micrograph = draw(bench, "first")
    none = remove_particles(extract(bench, micrograph), {"all": np.ones(4, dtype=bool)})
    found, classes = assign([3, 8], np.zeros((2, 2))), write_averages(bench, (1.0, 0.0))
    assert extract_again(micrograph, none, CTF, PARAMS, ACQUISITION, bench).count == 0
    assert extract_coordinates(micrograph, none, found, classes, ExtractCoordinatesParams(), bench).count == 0
    centred = centre_particles(micrograph, none, found, classes, CentreParams(), bench)
    assert (centred.count, centred.stack, centred.moved_px) == (0, None, None)
    assert read_particles(centred, bench).shape == (0, 40, 40)


def test_particles_keep_the_key_of_their_picks_wherever_they_go(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    micrograph, other = draw(bench, "first"), draw(bench, "other", bin=2)
    picks = make_picks(table_of_picks(RAW_PLACES, np.ones(4)), diameter_ang=40.0)
    masked = remove_picks(picks, {"some": np.array([True, False, False, False])})
    particles = extract_particles(micrograph, masked, CTF, PARAMS, ACQUISITION, bench)
    assert (particles.picks_key, particles.origin) == (picks.numbered_by, bench.exposure.id)
    small = PARAMS.model_copy(update={"box_px": 20})
    carried = extract_coordinates(other, particles, None, None, ExtractCoordinatesParams(), bench)
    kept = [
        remove_particles(particles, {"some": np.array([True, False, False])}),
        extract_again(other, particles, None, small, ACQUISITION, bench),
        centre_particles(micrograph, particles, assign([1], np.zeros((1, 2))), None, CentreParams(), bench),
        extract_particles(other, carried, CTF, small, ACQUISITION, bench),
    ]
    assert {particles_key(one) for one in (particles, *kept)} == {particles_key(particles)}


def test_another_picking_and_another_exposure_number_other_particles(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    micrograph = draw(bench, "first")
    moved = extract(bench, micrograph, off_px=3.0)
    first = extract(bench, micrograph)
    bench.exposure = Exposure("1" * 32, "another")
    same_places = extract(bench, micrograph)
    assert len({particles_key(one) for one in (first, moved, same_places)}) == 3
    old = first.model_copy(update={"picks_key": None, "origin": None})  # as an early version stored it: by its micrograph
    assert particles_key(old) == hashlib.blake2b(b"session:first.mrc", digest_size=16).hexdigest().encode()


def test_assignments_of_other_picks_are_refused(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    micrograph = draw(bench, "first")
    particles = extract(bench, micrograph)
    other = assign([3, 8, 5, 11], np.zeros((4, 2))).model_copy(update={"picks_key": "b" * 32})
    with pytest.raises(ItemError, match="of other picks"):
        extract_coordinates(micrograph, particles, other, None, ExtractCoordinatesParams(), bench)
