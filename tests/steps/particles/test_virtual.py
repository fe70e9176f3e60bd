"""Virtual stacks: images that are cut from the micrograph when they are read are those that a stack would hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icestream.errors import ItemError
from icestream.flow import Exposure
from icestream.flow.execution.calls import store_record
from icestream.io.image import read_stack, write_mrc
from icestream.io.particles import particles_table, remove_particles
from icestream.io.picks import make_picks, table_of_picks
from icestream.io.star import read_star
from icestream.records import Acquisition, CtfFit, CtfLocal, Micrograph, Particles
from icestream.steps.classify2d.params import Classify2DParams, plan_classification, plan_for
from icestream.steps.classify2d.segments import prepare, sample_polar
from icestream.steps.export.relion import ExportRelion, ExportRelionParams, ExportState
from icestream.steps.particles.extract import ExtractParams, extract_particles
from icestream.steps.particles.reading import read_particles
from icestream.testing.context import StepBench

ACQUISITION = Acquisition(pixel_size_ang=2.0, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.07)
CTF = CtfFit(defocus_u_ang=15000, defocus_v_ang=14000, astigmatism_angle_deg=20, score=0.3, resolution_ang=5)
SURFACE = CtfLocal(
    model="plane",
    coefficients_ang=[0.0, 800.0, -300.0],
    height_px=256,
    width_px=240,
    range_ang=2000,
    error_ang=50,
    shift_ang=0,
    shift_error_ang=10,
    reversal=0,
    n_windows=9,
)
N = 7


def draw_bench(folder: Path) -> tuple[StepBench, Micrograph]:
    rng = np.random.default_rng(7)
    image = rng.normal(100, 2, size=(256, 240)).astype(np.float32)
    image[90, 100] = 300.0  # dust
    write_mrc(folder / "mic.mrc", image, pixel_size_ang=2.0)
    return StepBench(folder), Micrograph(image="session:mic.mrc", height_px=256, width_px=240, bin=1.0)


def cut(bench: StepBench, micrograph: Micrograph, *, local: bool = False, **params: Any) -> Particles:
    rng = np.random.default_rng(1)
    picks = make_picks(table_of_picks(rng.uniform(15, 225, (N, 2)), np.ones(N)), diameter_ang=48.0)
    given = ExtractParams(box_px=48, scaled_box_px=32, **params)
    surface = SURFACE if local else None
    return extract_particles(micrograph, picks, CTF, given, ACQUISITION, bench, local=surface)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"stored_as": "float16", "at_border": "pad"},
        {"subpixel": True, "normalise": "mean"},
        {"phase_flip": True},
        {"premultiply": True, "subpixel": True, "local": True, "at_border": "pad"},
        {"normalise": "none", "invert": False, "dust_level": None},
    ],
)
def test_a_virtual_stack_gives_the_same_images_bit_by_bit(tmp_path: Path, params: dict[str, Any]) -> None:
    bench, micrograph = draw_bench(tmp_path)
    real, virtual = cut(bench, micrograph, **params), cut(bench, micrograph, virtual=True, **params)
    assert virtual.is_virtual and not real.is_virtual
    assert real.block == virtual.block
    stored = store_record(virtual)
    virtual = Particles.restore(stored.json, version=stored.version, block=stored.block)
    images = read_particles(real, bench)
    assert len(images) == real.count > 3
    assert np.array_equal(read_particles(virtual, bench), images)
    some = np.arange(real.count) % 3 == 1
    parts = [remove_particles(one, {"some": some}) for one in (real, virtual)]
    for part in parts:
        assert np.array_equal(read_particles(part, bench), images[~some])


def test_each_particle_is_multiplied_by_the_ctf_of_its_place(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    plain = cut(bench, micrograph, premultiply=True)
    before = read_particles(plain, bench).copy()
    local = cut(bench, micrograph, premultiply=True, local=True)  # writes over the stack
    assert local.ctf_premultiplied and not local.phase_flipped
    moved = particles_table(local)["defocus_u_ang"] - particles_table(plain)["defocus_u_ang"]
    assert np.ptp(moved) > 300
    differing = np.abs(read_particles(local, bench) - before).mean(axis=(1, 2))
    assert np.corrcoef(np.abs(moved), differing)[0, 1] > 0.9


def test_what_cannot_be_corrected_is_refused(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    picks = make_picks(table_of_picks(np.full((1, 2), 120.0), np.ones(1)), diameter_ang=48.0)
    with pytest.raises(ItemError, match="particle 0 has no CTF to be multiplied by"):
        extract_particles(micrograph, picks, None, ExtractParams(premultiply=True), ACQUISITION, bench)
    with pytest.raises(ValueError, match="choose one of them"):
        ExtractParams(premultiply=True, phase_flip=True)
    write_mrc(tmp_path / "bright.mrc", np.linspace(0, 2e5, 256 * 240, dtype=np.float32).reshape(256, 240), pixel_size_ang=2.0)
    bright = micrograph.model_copy(update={"image": "session:bright.mrc"})
    with pytest.raises(ItemError, match="do not fit float16: normalise them"):
        cut(bench, bright, normalise="none", stored_as="float16")
    lost = cut(bench, micrograph, virtual=True).model_copy(update={"cutting": None})
    with pytest.raises(ItemError, match="neither a stack nor a micrograph"):
        read_particles(lost, bench)


def test_a_classification_reads_virtual_stacks(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    setting = plan_for(Classify2DParams(limit_ang=12.0), box_px=32, pixel_size_ang=3.0)
    real, virtual = (
        prepare(
            cut(bench, micrograph, virtual=virtual),
            ACQUISITION,
            size=setting.grid.box_px,
            name="mic",
            exposure_id="0" * 32,
            ordinal=0,
            ctx=bench,
        )
        for virtual in (False, True)
    )
    assert np.array_equal(real.images, virtual.images)
    assert real.table.tobytes() == virtual.table.tobytes()
    assert real.images.std() > 0.3


def test_a_classification_knows_that_images_were_multiplied(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    setting = plan_classification(Classify2DParams(limit_ang=12.0), box_px=32, pixel_size_ang=3.0, n_classes=2)
    multiplied, plain = (
        sample_polar(
            prepare(
                cut(bench, micrograph, premultiply=given),
                ACQUISITION, size=setting.grid.box_px, name="a", exposure_id="0" * 32, ordinal=0, ctx=bench,
            ),
            setting=setting,
            box_ang=96.0,
        )
        for given in (True, False)
    )  # fmt: skip
    assert (multiplied.ctf_squared <= plain.ctf_squared + 1e-5).all()  # means over rings of the fourth power, and of the square
    assert (multiplied.ctf_squared >= plain.ctf_squared**2 - 1e-5).all()
    assert multiplied.ctf_squared.mean() < 0.9 * plain.ctf_squared.mean()
    assert np.ptp(plain.ctf_squared) > 0.8


def test_a_relion_project_gets_the_images_of_a_virtual_stack(tmp_path: Path) -> None:
    bench, micrograph = draw_bench(tmp_path)
    real = cut(bench, micrograph, premultiply=True)
    part = remove_particles(cut(bench, micrograph, premultiply=True, virtual=True), {"some": np.arange(real.count) == 0})
    exposure = Exposure("1" * 32, "mic")
    ExportRelion().add(ExportState(), [exposure], [micrograph], [CTF], [part], [ACQUISITION], [None], ExportRelionParams(), bench)
    project = bench.export_folder()
    tables = read_star(project / "Extract/job003/particles.star")
    names = [name.partition("@") for name in tables["particles"].columns["rlnImageName"]]
    assert [number for number, _, _ in names] == [f"{i:06d}" for i in range(2, real.count + 1)]
    assert np.array_equal(read_stack(project / names[0][2])[1:], read_particles(real, bench)[1:])
    assert tables["optics"].columns["rlnCtfDataAreCtfPremultiplied"] == ["1"]
