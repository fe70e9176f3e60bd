"""Groups for cryoSPARC: what they say, that they grow as they should, and exposure groups by beam shift."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from icestream.algorithms.grid.beam_shifts import group_beam_shifts_2d
from icestream.errors import ItemError
from icestream.io.cryosparc import read_cs
from icestream.io.ctf_files import read_ctf_file
from icestream.io.epu import read_epu_xml
from icestream.io.image import read_stack
from icestream.io.particle_files import find_stack, read_particle_file
from icestream.records import ExposureMetadata
from icestream.steps.export.cryosparc import CryosparcState, ExportCryosparc, ExportCryosparcParams
from icestream.testing.context import StepBench
from toys.relion_project import ACQUISITION, make_exposure

EPU = Path(__file__).resolve().parents[4] / "shared" / "data" / "session_metadata" / "epu_afis_2020"


def add(bench: StepBench, state: CryosparcState, data, shifts=None) -> CryosparcState:
    exposures, micrographs, ctfs, particles = (list(column) for column in zip(*data, strict=True))
    if shifts is not None:
        for number, (y, x) in enumerate(shifts):
            metadata = ExposureMetadata(beam_shift_y=y, beam_shift_x=x)
            micrographs[number] = micrographs[number].model_copy(update={"metadata": metadata})
    given_ones = (exposures, micrographs, ctfs, particles, [ACQUISITION] * len(data))
    return ExportCryosparc().add(state, *given_ones, ExportCryosparcParams(), bench).state


def test_particles_are_read_again_as_they_are(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = add(bench, CryosparcState(), [make_exposure(bench, 1), make_exposure(bench, 2)])
    snapshot = ExportCryosparc().emit(state, ExportCryosparcParams(), bench)
    assert (snapshot.n_exposures, snapshot.n_particles, snapshot.n_exposure_groups) == (2, 6, 1)
    folder = bench.path(snapshot.folder)
    found = read_particle_file(folder / "particles.csg")
    assert found.slices.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.numbers["x_px"] == pytest.approx([30, 31, 32] * 2)
    assert found.numbers["y_px"] == pytest.approx([21] * 3 + [22] * 3)
    assert found.numbers["astigmatism_angle_deg"] == pytest.approx([20] * 6, abs=1e-4)
    assert (found.optics[0].pixel_size_ang, found.optics[0].raw_pixel_ang, found.bright) == (4.0, 2.0, True)
    stack = find_stack(folder, found.stacks[0])
    assert stack is not None and read_stack(stack).shape == (3, 16, 16)
    assert not stack.readlink().is_absolute()
    ctfs = read_ctf_file(folder / "exposures.cs")
    assert ctfs.numbers["defocus_u_ang"].tolist() == [15000, 15000]
    assert ctfs.numbers["resolution_ang"].tolist() == [5, 5]
    group = yaml.safe_load((folder / "exposures.csg").read_text(encoding="utf-8"))
    assert group["group"]["type"] == "exposure"
    assert group["results"]["mscope_params"] == {"metafile": ">exposures.cs", "num_items": 2, "type": "exposure.mscope_params"}
    assert set(group["results"]) == {"micrograph_blob", "mscope_params", "ctf", "ctf_stats"}


def test_a_replay_after_a_crash_gives_the_same_bytes(tmp_path: Path) -> None:
    straight, crashed = StepBench(tmp_path / "a"), StepBench(tmp_path / "b")
    for bench in (straight, crashed):
        bench.folder.mkdir()
        data = [make_exposure(bench, number) for number in (1, 2, 3)]
        shifts = [(0, 0), (1, 1), (0, 0.01)]
        state = add(bench, CryosparcState(), data[:1], shifts[:1])
        if bench is crashed:
            add(bench, state, data[1:], shifts[1:])  # its state is lost
            path = bench.export_folder() / "particles.cs"
            path.write_bytes(path.read_bytes()[:-17])
        state = CryosparcState.restore(state.model_dump_json(), version=1, block=None)
        for item, shift in zip(data[1:], shifts[1:], strict=True):
            state = add(bench, state, [item], [shift])
    for name in ("particles.cs", "exposures.cs"):
        assert (crashed.export_folder() / name).read_bytes() == (straight.export_folder() / name).read_bytes()


def test_exposure_groups_follow_the_beam_shift_in_both_files(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    shifts = [(0.0, 0.0), (0.03, 0.0), (0.001, 0.0), (0.031, 0.001)]
    data = [make_exposure(bench, number) for number in (1, 2, 3, 4)]
    state = add(bench, CryosparcState(), data, shifts)
    folder = bench.export_folder()
    exposures, particles = read_cs(folder / "exposures.cs"), read_cs(folder / "particles.cs")
    assert exposures["mscope_params/exp_group_id"].tolist() == [0, 1, 0, 1]
    assert exposures["ctf/exp_group_id"].tolist() == [0, 1, 0, 1]
    assert particles["ctf/exp_group_id"].tolist() == [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3
    assert particles["location/exp_group_id"].tolist() == particles["ctf/exp_group_id"].tolist()
    assert state.n_groups == 2


def test_exposures_without_a_ctf_are_left_out_where_others_have_one(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = add(bench, CryosparcState(), [make_exposure(bench, 1), make_exposure(bench, 2, ctf=None)])
    assert (state.n_exposures, state.n_left_out) == (1, 1)
    other = StepBench(tmp_path / "none")
    other.folder.mkdir()
    add(other, CryosparcState(), [make_exposure(other, 1, ctf=None), make_exposure(other, 2)])
    assert not [name for name in read_cs(other.export_folder() / "exposures.cs").dtype.names if name.startswith("ctf")]


def test_what_cryosparc_could_not_know_is_refused(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = add(bench, CryosparcState(), [make_exposure(bench, 1)])
    exposure, micrograph, ctf, particles = make_exposure(bench, 2)
    for update, told in (({"phase_flipped": True}, "phase-flipped"), ({"box_px": 18}, "a box of 18 px, those before 16")):
        with pytest.raises(ItemError, match=told):
            add(bench, state, [(exposure, micrograph, ctf, particles.model_copy(update=update))])
    (bench.export_folder() / "exposures.cs").write_bytes(b"")
    with pytest.raises(ItemError, match="has fewer than the 1 rows that were written to it; restart export_cryosparc"):
        add(bench, state, [make_exposure(bench, 2)])


@given(st.permutations(range(30)), st.integers(2, 5), st.floats(1e-6, 1e6))
def test_groups_do_not_depend_on_order_or_unit(order, n_groups: int, unit: float) -> None:
    rng = np.random.default_rng(n_groups)
    group = np.arange(30) % n_groups
    centres = np.array([(0, 0), (0, 10), (10, 0), (10, 10), (5, 5)])[:n_groups]
    shifts = (centres[group] + rng.uniform(-0.5, 0.5, size=(30, 2))) * unit
    found = group_beam_shifts_2d(shifts[list(order)])
    truth = group[list(order)]
    assert len(set(zip(found.tolist(), truth.tolist(), strict=True))) == n_groups == found.max() + 1
    assert found[0] == 0


def test_shifts_that_are_the_same_even_or_unknown_make_no_groups() -> None:
    assert group_beam_shifts_2d(np.zeros((5, 2))).tolist() == [0] * 5
    even = np.stack([np.arange(20.0), np.zeros(20)], axis=1)
    assert group_beam_shifts_2d(even).tolist() == [0] * 20
    assert group_beam_shifts_2d(np.array([[np.nan, 0], [1, 1], [1, 1]])).tolist() == [0, 1, 1]
    assert group_beam_shifts_2d(np.zeros((0, 2))).tolist() == []


def test_real_shifts_of_epu_are_divided_as_they_were_set() -> None:
    if not EPU.is_dir():
        pytest.skip(f"missing folder: {EPU}")
    paths = sorted(path for path in EPU.rglob("*.xml") if "Fractions" not in path.name)
    said = [read_epu_xml(path).metadata for path in paths]
    shifts = np.array([(one.beam_shift_y, one.beam_shift_x) for one in said])
    groups = group_beam_shifts_2d(shifts)
    areas = np.array([path.name.split("_Data_")[1].split("_")[0] for path in paths])
    for group in range(groups.max() + 1):  # a group is of one area of the template, and is small
        mine = groups == group
        assert len(set(areas[mine])) == 1
        assert np.ptp(shifts[mine], axis=0).max() < 0.02
    assert groups.max() + 1 >= 3 * 5
