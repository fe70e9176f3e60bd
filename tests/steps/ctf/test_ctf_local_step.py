"""Local defocus from the image file to the particle."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy import fft

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.errors import ItemError
from icestream.flow.declaration.step_type import Kind, step_type_of
from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.records import Acquisition, CtfFit, CtfLocal, Micrograph, Picks
from icestream.steps.ctf.local import CtfLocalParams, defocus_offset_ang, examine_local_ctf
from icestream.steps.particles.extract import ExtractParams, extract_particles
from icestream.testing.context import StepBench

SIDE_PX, PIXEL_ANG = 640, 3.0
ACQUISITION = Acquisition(pixel_size_ang=1.5, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.1)
CTF = CtfFit(defocus_u_ang=15100, defocus_v_ang=14900, astigmatism_angle_deg=30, score=0.9, resolution_ang=7)
MICROGRAPH = Micrograph(
    image="session:weighted.mrc", unweighted="session:plain.mrc", height_px=SIDE_PX, width_px=SIDE_PX, bin=2.0
)
PARAMS = CtfLocalParams(tile_ang=700.0, max_tilt_deg=45.0)


def _image(tilt_deg: float) -> np.ndarray:
    """Return noise under CTFs whose defocus grows along x, mixed from strips."""
    rng = np.random.default_rng(7)
    shape = (SIDE_PX, SIDE_PX)
    specimen = fft.rfft2(rng.standard_normal(shape))
    height_ang = np.tan(np.deg2rad(tilt_deg)) * PIXEL_ANG * (np.arange(SIDE_PX) - 0.5 * (SIDE_PX - 1))
    image = 0.7 * rng.standard_normal(shape)
    for level in np.arange(np.floor(height_ang.min() / 100), np.ceil(height_ang.max() / 100) + 1):
        ctf = ctf_2d(
            *shape,
            pixel_size_ang=PIXEL_ANG,
            defocus_u_ang=15100 + 100 * level,
            defocus_v_ang=14900 + 100 * level,
            astigmatism_angle_deg=30,
            voltage_kv=300,
            cs_mm=2.7,
            amplitude_contrast=0.1,
        )
        image += np.maximum(1 - np.abs(height_ang / 100 - level), 0) * fft.irfft2(specimen * ctf, s=shape)
    return image.astype(np.float32)


@pytest.fixture
def bench(tmp_path: Path) -> StepBench:
    mrcfile.write(tmp_path / "plain.mrc", _image(25.0))
    mrcfile.write(tmp_path / "weighted.mrc", _image(0.0))
    return StepBench(tmp_path)


def test_the_unweighted_image_is_examined_at_its_binned_pixel_size(bench: StepBench) -> None:
    found = examine_local_ctf(MICROGRAPH, CTF, PARAMS, ACQUISITION, bench)
    assert found.model == "plane"
    assert found.tilt_deg == pytest.approx(25.0, abs=2.0)
    assert found.tilt_axis_deg == pytest.approx(-90.0, abs=5.0)
    assert found.range_ang == pytest.approx(np.tan(np.deg2rad(25)) * SIDE_PX * PIXEL_ANG, rel=0.1)
    assert found.tilt_error_deg is not None
    assert 0 < found.tilt_error_deg < 2
    assert found.thickness_ang is None
    assert found.thickness_note is not None
    assert found.ice_ring_ang is None
    assert found.ice_note is not None
    assert "3 Å" in found.ice_note
    assert CtfLocal.restore(found.model_dump_json(), version=1, block=None) == found


def test_curves_are_short_and_a_picture_is_published(bench: StepBench) -> None:
    found = examine_local_ctf(MICROGRAPH, CTF, PARAMS, ACQUISITION, bench)
    assert 16 <= len(found.frequency_per_ang) == len(found.amplitude) == len(found.amplitude_fit) <= 200
    assert found.picture is not None
    assert bench.path(found.picture).read_bytes().startswith(b"\x89PNG")


def test_a_level_micrograph_adds_nothing(bench: StepBench) -> None:
    found = examine_local_ctf(MICROGRAPH.model_copy(update={"unweighted": None}), CTF, PARAMS, ACQUISITION, bench)
    assert (found.model, found.coefficients_ang, found.tilt_deg, found.range_ang) == ("constant", [0.0], None, 0.0)
    assert defocus_offset_ang(found, np.array([[0.0, 0.0], [600.0, 30.0]])).tolist() == [0.0, 0.0]
    assert found.plane_gain is not None
    assert found.plane_gain < 10


def test_particles_have_the_defocus_of_their_place(bench: StepBench) -> None:
    local = examine_local_ctf(MICROGRAPH, CTF, PARAMS, ACQUISITION, bench)
    table = np.zeros(2, dtype=dtype_of(Picks.block_columns))
    table["pid"], table["y_px"], table["x_px"] = [0, 1], [320, 320], [100, 540]
    picks = Picks(count=2, diameter_ang=90.0, block=to_block(table))
    params = ExtractParams(box_px=48)
    plain = from_block(extract_particles(MICROGRAPH, picks, CTF, params, ACQUISITION, bench).block)
    placed = from_block(extract_particles(MICROGRAPH, picks, CTF, params, ACQUISITION, bench, local=local).block)
    expected = np.tan(np.deg2rad(25.0)) * PIXEL_ANG * (np.array([100, 540]) - 0.5 * (SIDE_PX - 1))
    for name, value in (("defocus_u_ang", 15100), ("defocus_v_ang", 14900)):
        assert plain[name].tolist() == [value, value]
        assert placed[name] - value == pytest.approx(expected, abs=60)
    assert np.array_equal(plain["astigmatism_angle_deg"], placed["astigmatism_angle_deg"])
    with pytest.raises(ItemError, match="connect the CTF"):
        extract_particles(MICROGRAPH, picks, None, params, ACQUISITION, bench, local=local)


def test_what_is_missing_is_named(bench: StepBench) -> None:
    with pytest.raises(ItemError, match="voltage_kv"):
        examine_local_ctf(MICROGRAPH, CTF, PARAMS, Acquisition(pixel_size_ang=1.5), bench)
    mrcfile.write(bench.path("session:small.mrc"), np.zeros((100, 100), np.float32))
    small = Micrograph(image="session:small.mrc", height_px=100, width_px=100, bin=1.0)
    with pytest.raises(ItemError, match=r"small.mrc.*too small"):
        examine_local_ctf(small, CTF, PARAMS, ACQUISITION, bench)
    with pytest.raises(ValueError, match="larger number"):
        CtfLocalParams(resolution_ang=(3.0, 30.0))


def test_the_step_is_declared() -> None:
    declared = step_type_of(examine_local_ctf)
    assert (declared.kind, [port.record for port in declared.ports]) == (Kind.MAP, [Micrograph, CtfFit])
    assert step_type_of(extract_particles).ports[-1].record is CtfLocal
