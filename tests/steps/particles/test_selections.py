"""A part of the particles of a micrograph: the same stack, some of its slices, and what was removed beside them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icestream.errors import ItemError
from icestream.flow.execution.calls import store_record
from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.io.image import read_stack, write_mrc
from icestream.io.particles import particles_table, remove_particles, removed_particles_table
from icestream.io.star import read_star
from icestream.records import Acquisition, Particles
from icestream.steps.classify2d.params import Classify2DParams, plan_for
from icestream.steps.classify2d.segments import prepare, sample_polar
from icestream.steps.export.relion import ExportState
from icestream.steps.particles.reading import read_particles
from icestream.steps.particles.rejected import RejectedParticlesParams, take_rejected_particles
from icestream.testing.context import StepBench
from toys.relion_project import add, make_exposure

N, BOX = 6, 32
EMPTY = np.array([False, True, False, False, True, False])
EDGE = np.array([False, False, False, True, True, False])


def draw_particles(bench: StepBench, *, with_slices: bool = True) -> Particles:
    columns = Particles.block_columns if with_slices else Particles.block_columns[:-1]
    table = np.zeros(N, dtype=dtype_of(columns))
    table["pid"], table["score"] = np.arange(N) + 10, np.arange(N)
    table["defocus_u_ang"] = table["defocus_v_ang"] = 10000 + 100 * np.arange(N)
    if with_slices:
        table["slice"] = np.arange(N)
    images = np.random.default_rng(3).normal(size=(N, BOX, BOX)).astype(np.float32)
    write_mrc(bench.folder / "stack.mrcs", images, pixel_size_ang=4.0)
    return Particles(
        stack="session:stack.mrcs",
        count=N,
        n_left_out=2,
        box_px=BOX,
        bin=2.0,
        inverted=True,
        phase_flipped=False,
        micrograph="session:mic.mrc",
        block=to_block(table),
    )


def test_a_part_refers_to_the_same_stack_and_keeps_what_it_left_out(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    whole = draw_particles(bench)
    part = remove_particles(whole, {"empty": EMPTY, "at an edge": EDGE, "ice": ~EMPTY & False})
    assert (part.stack, part.count, part.n_removed, part.n_left_out) == (whole.stack, 3, 3, 0)
    assert particles_table(part)["pid"].tolist() == [10, 12, 15]
    assert [(one.reason, one.count) for one in part.removed] == [("empty", 2), ("at an edge", 1), ("ice", 0)]
    removed = removed_particles_table(part)
    assert removed["pid"].tolist() == [11, 13, 14]
    assert removed["reason"].tolist() == [0, 1, 0]
    assert np.array_equal(read_particles(part, bench), read_stack(tmp_path / "stack.mrcs")[[0, 2, 5]])
    again = remove_particles(part, {"small": np.array([True, False, True])})
    assert np.array_equal(read_particles(again, bench), read_stack(tmp_path / "stack.mrcs")[[2]])


def test_parts_come_back_from_the_store(tmp_path: Path) -> None:
    part = remove_particles(draw_particles(StepBench(tmp_path)), {"empty": EMPTY})
    stored = store_record(part)
    assert Particles.restore(stored.json, version=stored.version, block=stored.block) == part


def test_a_table_stored_without_slices_has_a_slice_for_each_row(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    stored = store_record(draw_particles(bench, with_slices=False))
    old = Particles.restore(stored.json, version=1, block=stored.block)
    assert particles_table(old)["slice"].tolist() == list(range(N))
    part = remove_particles(old, {"empty": EMPTY})
    assert np.array_equal(read_particles(part, bench), read_stack(tmp_path / "stack.mrcs")[~EMPTY])


def test_removed_particles_are_a_stream_with_their_images(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    part = remove_particles(draw_particles(bench), {"empty": EMPTY, "at an edge": EDGE})
    removed = take_rejected_particles(part, RejectedParticlesParams())
    assert particles_table(removed)["pid"].tolist() == [11, 13, 14]
    assert from_block(removed.block).dtype == dtype_of(Particles.block_columns)
    assert np.array_equal(read_particles(removed, bench), read_stack(tmp_path / "stack.mrcs")[[1, 3, 4]])
    edge = take_rejected_particles(part, RejectedParticlesParams(reasons=["at an edge"]))
    assert particles_table(edge)["pid"].tolist() == [13]
    with pytest.raises(ItemError, match="'junk'; the step gives: empty, at an edge"):
        take_rejected_particles(part, RejectedParticlesParams(reasons=["junk"]))
    assert take_rejected_particles(draw_particles(bench), RejectedParticlesParams(reasons=["junk"])).count == 0


def test_a_slice_that_the_stack_does_not_have_is_refused(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    whole = draw_particles(bench)
    table = particles_table(whole).copy()
    table["slice"] += 1
    with pytest.raises(ItemError, match="holds 6 images; its particles ask for 1 to 6"):
        read_particles(whole.model_copy(update={"block": to_block(table)}), bench)


def test_a_classification_reads_the_slices_of_a_part(tmp_path: Path) -> None:
    """The images, the CTF and the number of each particle belong together."""
    bench = StepBench(tmp_path)
    acquisition = Acquisition(pixel_size_ang=2.0, voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.1)
    setting = plan_for(Classify2DParams(limit_ang=12.0), box_px=BOX, pixel_size_ang=4.0)
    whole = draw_particles(bench)
    given: dict[str, Any] = {"size": setting.grid.box_px, "name": "e", "exposure_id": "e", "ordinal": 0, "ctx": bench}
    kept_all, kept_part = (prepare(record, acquisition, **given) for record in (whole, remove_particles(whole, {"empty": EMPTY})))
    everything, part = (sample_polar(one, setting=setting, box_ang=BOX * 4.0) for one in (kept_all, kept_part))
    kept = np.flatnonzero(~EMPTY)
    assert kept_part.table["pid"].tolist() == (kept + 10).tolist()
    assert np.array_equal(part.ctf_squared, everything.ctf_squared[kept])
    assert np.allclose(part.signal, everything.signal[kept], atol=1e-3)


def test_a_relion_project_of_a_part_names_its_slices(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    exposure, micrograph, ctf, particles = make_exposure(bench, 1)
    assert particles is not None
    part = remove_particles(particles, {"empty": np.array([True, False, False])})
    state = add(bench, ExportState(), [(exposure, micrograph, ctf, part)])
    assert state.n_particles == 2
    rows = read_star(bench.export_folder() / "Extract/job003/particles.star")["particles"].columns
    assert [name.partition("@")[0] for name in rows["rlnImageName"]] == ["000002", "000003"]
    assert rows["rlnCoordinateX"] == ["31.000000", "32.000000"]
