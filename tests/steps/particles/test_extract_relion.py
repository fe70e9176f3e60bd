"""The images of `extract` are those that RELION 3.1 extracts at the same places of the same micrograph."""

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from icestream.flow import Exposure
from icestream.io.image import read_stack, write_mrc
from icestream.io.picks import make_picks, table_of_picks
from icestream.records import Acquisition, CtfFit, Micrograph
from icestream.steps.export.relion import ExportRelion, ExportRelionParams, ExportState
from icestream.steps.particles.extract import ExtractParams, extract_particles
from icestream.steps.particles.reading import read_particles
from icestream.testing.context import StepBench

Images = NDArray[np.float32]
Pair = Callable[..., tuple[Images, Images]]
ACQUISITION = Acquisition(pixel_size_ang=1.5, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.1)
CTF = CtfFit(defocus_u_ang=12000, defocus_v_ang=11000, astigmatism_angle_deg=25, score=0.5, resolution_ang=4)
BOX, BACKGROUND_ANG = 128, 120.0


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Return what extracts with our parameters and with RELION's options, from one micrograph of coloured noise."""
    program = shutil.which("relion_preprocess")
    if program is None:
        pytest.skip("missing programs: relion_preprocess")
    folder, rng = tmp_path_factory.mktemp("relion"), np.random.default_rng(0)
    bench = StepBench(folder)
    image = ndimage.gaussian_filter(rng.normal(size=(512, 480)), 0.7) * 3 + 50 + np.linspace(0, 4, 480)[None]
    write_mrc(folder / "mic.mrc", image.astype(np.float32), pixel_size_ang=1.5)
    micrograph = Micrograph(image="session:mic.mrc", height_px=512, width_px=480, bin=1.0)
    picks = make_picks(table_of_picks(np.round(rng.uniform(110, 370, (8, 2))), np.ones(8)), diameter_ang=90.0)
    base = ExtractParams(box_px=BOX, dust_level=None, background_diameter_ang=BACKGROUND_ANG)

    def ours(**params: Any) -> Images:
        given = base.model_copy(update={"virtual": True, **params})
        return read_particles(extract_particles(micrograph, picks, CTF, given, ACQUISITION, bench), bench)

    first = extract_particles(micrograph, picks, CTF, base, ACQUISITION, bench)
    data = ([Exposure("1" * 32, "mic")], [micrograph], [CTF], [first], [ACQUISITION], [picks])
    ExportRelion().add(ExportState(), *data, ExportRelionParams(), bench)
    project = bench.export_folder()

    def pair(*options: str, **params: Any) -> tuple[Images, Images]:
        shutil.rmtree(project / "New", ignore_errors=True)
        small = params.get("scaled_box_px") or BOX
        arguments = (
            *("--i", "CtfFind/job002/micrographs_ctf.star", "--reextract_data_star", "Extract/job003/particles.star"),
            *("--part_star", "New.star", "--part_dir", "New/", "--extract", "--extract_size", str(BOX), "--invert_contrast"),
            *("--norm", "--bg_radius", f"{BACKGROUND_ANG / 3 * small / BOX:g}", *options),
        )
        subprocess.run([program, *arguments], cwd=project, check=True, capture_output=True, timeout=120)
        (stack,) = (project / "New").rglob("*.mrcs")
        return ours(**params), read_stack(stack)

    return pair


@pytest.mark.services
@pytest.mark.parametrize(("normalise", "options"), [("ramp", ()), ("mean", ("--no_ramp",))])
def test_normalised_particles_are_those_of_relion(extracted: Pair, normalise: str, options: tuple[str, ...]) -> None:
    ours, theirs = extracted(*options, normalise=normalise)
    assert np.allclose(ours, theirs, atol=2e-6)


@pytest.mark.services
def test_scaled_particles_are_those_of_relion_below_the_highest_frequency(extracted: Pair) -> None:
    ours, theirs = extracted("--scale", "64", scaled_box_px=64)
    difference = np.abs(np.fft.fft2(ours - theirs)) ** 2
    total = difference.sum()
    difference[:, 32], difference[:, :, 32] = 0, 0
    assert difference.sum() < 0.02 * total
    assert difference.sum() < 2e-4 * (np.abs(np.fft.fft2(theirs)) ** 2).sum()


@pytest.mark.services
def test_premultiplied_particles_are_those_of_relion_in_a_wide_box(extracted: Pair) -> None:
    """RELION needs to be told to multiply in a box that is wide enough; in its own box detail is lost that ours keeps."""
    ours, theirs = extracted("--premultiply_ctf", "--premultiply_extract_size", "384", premultiply=True)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9995
    _, narrow = extracted("--premultiply_ctf", "--premultiply_extract_size", str(BOX), premultiply=True)
    assert np.corrcoef(ours.ravel(), narrow.ravel())[0, 1] < 0.9
