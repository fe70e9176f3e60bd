import csv
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from icestream.errors import ItemError
from icestream.flow.declaration.step_type import step_type_of
from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.io.image import read_image, read_stack, write_mrc
from icestream.records import Acquisition, CtfFit, Micrograph, Particles, ParticleSize, Picks
from icestream.steps.particles.extract import ExtractParams, extract_particles
from icestream.steps.picking.blob import PickBlobParams, pick_blobs
from icestream.steps.picking.matched import PickMatchedParams, is_crystalline, pick_matched
from icestream.testing.context import StepBench

ACQUISITION = Acquisition(pixel_size_ang=2.0, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.07)
CTF = CtfFit(defocus_u_ang=15000, defocus_v_ang=14000, astigmatism_angle_deg=20, score=0.3, resolution_ang=5)
CENTRES = np.array([[60.0, 70.0], [60.0, 150.0], [130.0, 110.0], [200.0, 60.0], [190.0, 180.0], [6.0, 120.0], [125.0, 190.0]])


def draw_bench(tmp_path: Path) -> tuple[StepBench, Micrograph]:
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:256, :240]
    image = rng.normal(100, 2, size=y.shape)
    for row, column in CENTRES:
        image -= 6 * (np.hypot(y - row, x - column) <= 12)
    bench = StepBench(tmp_path)
    write_mrc(tmp_path / "mic.mrc", image.astype(np.float32), pixel_size_ang=2.0)
    return bench, Micrograph(image="session:mic.mrc", height_px=256, width_px=240, bin=1.0)


def make_picks(centres: np.ndarray, first_pid: int = 0) -> Picks:
    table = np.zeros(len(centres), dtype=dtype_of(Picks.block_columns))
    table["pid"] = np.arange(first_pid, first_pid + len(centres))
    table["y_px"], table["x_px"], table["score"] = centres[:, 0], centres[:, 1], 1 - 0.1 * np.arange(len(centres))
    return Picks(count=len(table), diameter_ang=48.0, block=to_block(table))


def test_steps_are_declared() -> None:
    assert step_type_of(pick_blobs).reads == {"pixel_size_ang"}
    ports = {port.name: port.optional for port in step_type_of(extract_particles).ports}
    assert ports == {"micrograph": False, "picks": False, "ctf": True, "local": True}


def _bare_size(**own: object) -> ParticleSize:
    lengths = {"diameter_ang": 48.0, "error_ang": 1.0, "n_micrographs": 3, "n_alike": 3, "box_px": 36, "box_ang": 72.0}
    further = {"mask_diameter_ang": 58.0, "radius_px": 12.0, "micrographs": []}
    return ParticleSize.model_validate({**lengths, **further, **own})


def test_the_diameter_is_given_or_comes_from_the_session(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    with pytest.raises(ItemError, match="diameter_ang, or link the input size"):
        pick_matched(micrograph, PickMatchedParams(), ACQUISITION, bench)
    from_session = pick_matched(micrograph, PickMatchedParams(), ACQUISITION, bench, size=_bare_size())
    given = pick_matched(
        micrograph, PickMatchedParams(diameter_ang=(48, 48)), ACQUISITION, bench, size=_bare_size(diameter_ang=99.0)
    )
    assert from_session == given
    assert given.diameter_ang == pytest.approx(48)


def test_the_blob_picker_takes_the_diameter_of_the_session_too(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    with pytest.raises(ItemError, match="diameter_ang, or link the input size"):
        pick_blobs(micrograph, PickBlobParams(), ACQUISITION, bench)
    from_session = pick_blobs(micrograph, PickBlobParams(), ACQUISITION, bench, size=_bare_size())
    given = pick_blobs(micrograph, PickBlobParams(diameter_ang=(0.85 * 48, 1.12 * 48)), ACQUISITION, bench)
    assert from_session == given
    assert given.count > 0


def test_picks_say_how_they_were_told_from_noise(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    picks = pick_matched(micrograph, PickMatchedParams(diameter_ang=(48, 48)), ACQUISITION, bench)
    assert picks.no_picks is None
    assert picks.threshold is not None and picks.threshold > 2
    assert picks.expected_false is not None and picks.expected_false <= 0.05
    noise = np.random.default_rng(3).normal(100, 2, (256, 240)).astype(np.float32)
    write_mrc(tmp_path / "noise.mrc", noise, pixel_size_ang=2.0)
    empty = micrograph.model_copy(update={"image": "session:noise.mrc"})
    nothing = pick_matched(empty, PickMatchedParams(diameter_ang=(48, 48)), ACQUISITION, bench)
    assert (nothing.count, nothing.no_picks, nothing.threshold) == (0, "noise", None)


def test_crystals_are_seen_by_their_spots() -> None:
    noise = np.random.default_rng(3).normal(size=(600, 600))
    y, _ = np.mgrid[:600, :600]
    x = np.arange(600)
    spots = 0.7 * np.cos(2 * np.pi * (1.0 / 3.67) * (0.8 * x[None, :] + 0.6 * y))
    assert is_crystalline(noise + spots, pixel_ang=1.0)
    assert not is_crystalline(noise, pixel_ang=1.0)
    assert not is_crystalline(noise + spots, pixel_ang=3.0)


def test_picks_are_numbered_from_the_best_and_repeatable(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    params = PickBlobParams(diameter_ang=(44, 54))
    picks = pick_blobs(micrograph, params, ACQUISITION, bench)
    table = from_block(picks.block)
    assert table["pid"].tolist() == list(range(picks.count))
    assert (np.diff(table["score"]) <= 0).all()
    distance = cdist(np.stack([table["y_px"], table["x_px"]], axis=1), CENTRES)
    assert (distance.min(axis=0) < 4).all()
    assert picks.count <= len(CENTRES) + 1
    assert pick_blobs(micrograph, params, ACQUISITION, bench).block == picks.block
    best = pick_blobs(micrograph, params.model_copy(update={"max_picks": 3}), ACQUISITION, bench)
    assert np.array_equal(from_block(best.block), table[:3])


def test_picking_refuses_what_cannot_be(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    with pytest.raises(ItemError, match="pixel_size_ang"):
        pick_blobs(micrograph, PickBlobParams(diameter_ang=(44, 54)), Acquisition(), bench)
    with pytest.raises(ItemError, match="60 to 50"):
        pick_blobs(micrograph, PickBlobParams(diameter_ang=(60, 50)), ACQUISITION, bench)
    with pytest.raises(ItemError, match="half the image"):
        pick_blobs(micrograph, PickBlobParams(diameter_ang=(400, 500)), ACQUISITION, bench)


def test_extracted_particles_are_bright_normalised_and_keep_their_pid(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    particles = extract_particles(micrograph, make_picks(CENTRES + 0.3, 10), CTF, ExtractParams(box_px=40), ACQUISITION, bench)
    table = from_block(particles.block)
    assert table["pid"].tolist() == [10, 11, 12, 13, 14, 16]  # the box of 15 leaves the image
    assert (particles.count, particles.n_left_out, particles.n_padded) == (6, 1, 0)
    assert np.array_equal(table["y_px"], np.delete(CENTRES[:, 0], 5))
    assert (table["defocus_u_ang"] == 15000).all()
    assert particles.stack is not None
    images = read_stack(bench.path(particles.stack))
    assert images.shape == (6, 40, 40)
    offset = np.arange(40) - 20
    radius = np.hypot(offset[:, None], offset[None, :])
    outside = radius > 0.5 * 1.2 * 24
    assert np.allclose(images[:, outside].mean(axis=1), 0, atol=1e-4)
    assert np.allclose(images[:, outside].std(axis=1), 1, atol=1e-4)
    assert (images[:, radius < 10].mean(axis=1) > 2).all()


def test_a_box_that_leaves_the_micrograph_may_be_padded(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    params = ExtractParams(box_px=40, at_border="pad")
    padded = extract_particles(micrograph, make_picks(CENTRES, 10), CTF, params, ACQUISITION, bench)
    assert (padded.count, padded.n_left_out, padded.n_padded) == (7, 0, 1)
    assert from_block(padded.block)["pid"].tolist() == list(range(10, 17))
    assert padded.stack is not None
    with_padding = read_stack(bench.path(padded.stack)).copy()
    plain = extract_particles(micrograph, make_picks(CENTRES, 10), CTF, ExtractParams(box_px=40), ACQUISITION, bench)
    assert plain.stack is not None
    assert np.array_equal(np.delete(with_padding, 5, axis=0), read_stack(bench.path(plain.stack)))  # all others are the same


def test_a_box_larger_than_the_micrograph_is_refused(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    for at_border in ("leave_out", "pad"):
        params = ExtractParams(box_px=242, at_border=at_border)
        with pytest.raises(ItemError, match="a box of 242 px does not fit into the micrograph of 256 x 240 px"):
            extract_particles(micrograph, make_picks(CENTRES), CTF, params, ACQUISITION, bench)


def test_scaled_particles_have_the_scaled_pixel_and_the_same_centre(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    params = ExtractParams(box_px=40, scaled_box_px=20, stored_as="float16", invert=False)
    particles = extract_particles(micrograph, make_picks(CENTRES[:5]), None, params, ACQUISITION, bench)
    assert (particles.box_px, particles.bin, particles.inverted) == (20, 2.0, False)
    assert np.isnan(from_block(particles.block)["defocus_u_ang"]).all()
    assert particles.stack is not None
    mean = read_stack(bench.path(particles.stack)).mean(axis=0)
    y, x = np.mgrid[:20, :20]
    weight = np.clip(-mean - 1, 0, None)
    assert (y * weight).sum() / weight.sum() == pytest.approx(10, abs=0.3)
    assert (x * weight).sum() / weight.sum() == pytest.approx(10, abs=0.3)


def test_the_box_follows_the_diameter_where_unset(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    particles = extract_particles(micrograph, make_picks(CENTRES[:2]), None, ExtractParams(), ACQUISITION, bench)
    assert 36 <= particles.box_px <= 40


def test_no_picks_give_no_stack(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    particles = extract_particles(micrograph, make_picks(CENTRES[:0]), CTF, ExtractParams(), ACQUISITION, bench)
    assert (particles.stack, particles.count, len(from_block(particles.block))) == (None, 0, 0)


def test_phase_flip_needs_a_ctf_and_changes_the_images(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    params = ExtractParams(box_px=40, phase_flip=True)
    with pytest.raises(ItemError, match="CTF"):
        extract_particles(micrograph, make_picks(CENTRES[:2]), None, params, ACQUISITION, bench)
    flipped = extract_particles(micrograph, make_picks(CENTRES[:2]), CTF, params, ACQUISITION, bench)
    assert flipped.phase_flipped
    assert isinstance(flipped, Particles)
    assert flipped.stack is not None
    images = read_stack(bench.path(flipped.stack)).copy()
    plain = extract_particles(micrograph, make_picks(CENTRES[:2]), CTF, ExtractParams(box_px=40), ACQUISITION, bench)
    assert plain.stack is not None
    assert not np.allclose(images, read_stack(bench.path(plain.stack)), atol=0.1)


def test_real_apoferritin_is_picked_like_by_hand(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "empiar10146_apoferritin"
    name = "May08_05.57.01"
    image = imagecodecs.png_decode((folder / "averages" / f"{name}.bin_avg.png").read_bytes())[::-1]
    write_mrc(tmp_path / "mic.mrc", image.astype(np.float32), pixel_size_ang=1.5)
    with (folder / "picks" / f"{name}.bin.csv").open() as handle:
        truth = np.array([[image.shape[0] - 1 - float(row["y_px"]), float(row["x_px"])] for row in csv.DictReader(handle)])
    micrograph = Micrograph(image="session:mic.mrc", height_px=image.shape[0], width_px=image.shape[1], bin=1.0)
    picks = pick_blobs(micrograph, PickBlobParams(diameter_ang=(100, 135)), Acquisition(pixel_size_ang=1.5), StepBench(tmp_path))
    table = from_block(picks.block)
    picked = np.stack([table["y_px"], table["x_px"]], axis=1)
    distance = cdist(picked, truth)
    rows, columns = linear_sum_assignment(np.where(distance <= 24, distance, 1e6))
    hits = np.count_nonzero(distance[rows, columns] <= 24)
    assert 2 * hits / (len(picked) + len(truth)) > 0.9


def test_nothing_is_picked_on_a_real_ice_ball(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "contaminated_micrograph"
    image = read_image(folder / "Ucsf_stack_1142_DW.mrc")
    ice = read_image(folder / "mask" / "Ucsf_stack_1142_DW.mrc") > 0.5
    ball = ice & (np.mgrid[: image.shape[0], : image.shape[1]][1] > 480) & (np.arange(image.shape[0])[:, None] < 400)
    assert ball.sum() > 50_000
    write_mrc(tmp_path / "mic.mrc", image, pixel_size_ang=1.0)
    micrograph = Micrograph(image="session:mic.mrc", height_px=image.shape[0], width_px=image.shape[1], bin=1.0)
    picks = pick_blobs(micrograph, PickBlobParams(diameter_ang=(25, 35)), Acquisition(pixel_size_ang=1.0), StepBench(tmp_path))
    table = from_block(picks.block)
    rows, columns = (
        np.round(table[name]).astype(int).clip(0, size - 1) for name, size in zip(("y_px", "x_px"), image.shape, strict=True)
    )
    assert not ball[rows, columns].any()
