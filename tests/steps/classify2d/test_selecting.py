"""Choosing among classes, taking the particles of good ones, agreeing, assigning to fixed classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.errors import FileFormatError, ItemError
from icestream.flow import Exposure
from icestream.flow.declaration.step_type import step_type_of
from icestream.io.blocks import INDEX, dtype_of, from_block, to_block
from icestream.io.image import write_mrc
from icestream.io.particles import particles_table, removed_particles_table
from icestream.records import Acquisition, ClassAverages, ClassEvent, ClassInfo, ClassSelection, Particles
from icestream.steps.classify2d.averages import all_assignments, assignment_record
from icestream.steps.classify2d.consensus import ClassConsensusParams, agree_on_2d_classes
from icestream.steps.classify2d.params import Classify2DParams
from icestream.steps.classify2d.segments import TABLE
from icestream.steps.classify2d.select import GoodClassesParams, SelectClassesParams, select_classes, take_good_classes
from icestream.steps.classify2d.static import StaticParams, assign_to_classes, read_averages
from icestream.steps.classify2d.streaming import Classify2D, classify_batch
from icestream.steps.particles.assigned import find_assignments
from icestream.steps.particles.rejected import RejectedParticlesParams, take_rejected_particles
from icestream.testing.context import StepBench

BOX, PIXEL_ANG = 32, 4.0
ACQUISITION = Acquisition(pixel_size_ang=PIXEL_ANG, voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.1)
SEARCH = {"limit_ang": 14.0, "psi_step_deg": 12.0, "max_shift_ang": 4.0}


def shapes() -> NDArray[np.float32]:
    """Three shapes, each 32 px wide."""
    grid = np.arange(BOX) - BOX // 2
    y, x = grid[:, None], grid[None, :]
    spots = [[(-6, 0), (6, 1), (2, 6)], [(0, -7), (0, 0), (0, 7)], [(-5, -5), (5, 5), (-5, 5)]]
    return np.stack([sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 8) for a, b in one) for one in spots]).astype(np.float32)


def expose(bench: StepBench, index: int, kinds: list[int], *, noise: float = 0.4) -> Particles:
    """Write a stack of shapes in random turns of a quarter."""
    rng = np.random.default_rng(index)
    images = np.stack([np.rot90(np.roll(shapes()[k], -1, (0, 1)), int(rng.integers(4))) for k in kinds])
    table = np.zeros(len(kinds), dtype=dtype_of(Particles.block_columns))
    table["pid"], table["slice"] = np.arange(len(kinds)) + 10 * index, np.arange(len(kinds))
    for name in ("defocus_u_ang", "defocus_v_ang"):
        table[name] = np.nan
    stack = f"session:{index}.mrcs"
    write_mrc(
        bench.path(stack), (images + rng.normal(scale=noise, size=images.shape)).astype(np.float32), pixel_size_ang=PIXEL_ANG
    )
    return Particles(
        stack=stack, count=len(kinds), box_px=BOX, bin=1.0, inverted=True, phase_flipped=False,
        micrograph=f"session:m{index}.mrc", block=to_block(table),
    )  # fmt: skip


def averages(bench: StepBench, *infos: ClassInfo, rows: NDArray[Any] | None = None, **fields: Any) -> ClassAverages:
    """Class averages with numbers that a test chooses, and assignments if there are rows."""
    name = fields.pop("name", "a")
    write_mrc(bench.path(f"session:{name}.mrcs"), np.resize(shapes(), (len(infos), BOX, BOX)), pixel_size_ang=PIXEL_ANG)
    if rows is not None:
        np.save(bench.path(f"session:{name}_table.npy"), rows)
        names, start, count = np.unique(rows["micrograph"], return_index=True, return_counts=True)
        index = np.zeros(len(names), dtype=INDEX)
        index["micrograph"], index["start"], index["count"] = names, start, count
        np.save(bench.path(f"session:{name}_index.npy"), index)
        fields |= {"tables": [f"session:{name}_table.npy"], "index": f"session:{name}_index.npy"}
    given = {"picture": "session:a.png", "box_px": BOX, "bin": 1.0, "version": 3, "count": sum(i.count for i in infos)}
    return ClassAverages(stack=f"session:{name}.mrcs", classes=list(infos), **(given | fields))


def test_particles_that_show_too_little_of_their_class_may_be_set_aside(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    particles = expose(bench, 1, [0, 0, 0])
    rows = rows_of(particles, [0, 0, 0])
    rows["amplitude"] = [1.0, 0.4, 0.8]
    classes = averages(bench, *CLASSES, rows=rows)
    selection = select_classes(classes, SelectClassesParams(), bench)
    first = assignment_record(rows, [4], version=1)
    kept = [
        take_good_classes(particles, first, classes, selection, GoodClassesParams(min_amplitude=least), bench).count
        for least in (None, 0.6, 0.9)
    ]
    assert kept == [3, 2, 1]


def rows_of(particles: Particles, places: list[int], *, score: float = 100.0, residual: float = 1.0) -> NDArray[Any]:
    rows = np.zeros(particles.count, dtype=TABLE)
    rows["micrograph"], rows["pid"] = particles.table_key, particles_table(particles)["pid"]
    rows["class_id"], rows["score"], rows["residual"] = places, score, residual
    return rows


def selected(selection: ClassSelection) -> list[int]:
    return [one.id for one in selection.classes if one.selected]


CLASSES = (
    ClassInfo(id=4, count=50, score=0.9, resolution_ang=8.0),
    ClassInfo(id=7, count=30, score=0.3, resolution_ang=15.0),
    ClassInfo(id=2, count=5, score=0.8, resolution_ang=9.0),
    ClassInfo(id=9, count=0, score=0.0),
)


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ({}, [4, 2]),
        ({"operating_point": "generous"}, [4, 7, 2]),
        ({"min_score": 0.85}, [4]),
        ({"min_particles": 10}, [4]),
        ({"operating_point": "generous", "max_resolution_ang": 10}, [4, 2]),
        ({"keep": [7], "drop": [4]}, [7, 2]),
        ({"operating_point": "by hand", "keep": [7]}, [7]),
    ],
)
def test_classes_are_selected_by_numbers_and_by_hand(tmp_path: Path, params: dict[str, Any], wanted: list[int]) -> None:
    bench = StepBench(tmp_path)
    found = select_classes(averages(bench, *CLASSES), SelectClassesParams(**params), bench)
    assert selected(found) == wanted
    assert found.n_selected == sum(info.count for info in CLASSES if info.id in wanted)
    assert bench.path(found.picture).read_bytes().startswith(b"\x89PNG")


def test_a_class_that_is_gone_may_be_named_but_not_one_that_never_was(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    known = averages(bench, *CLASSES, events=[ClassEvent(version=2, kind="died", class_id=1)])
    assert selected(select_classes(known, SelectClassesParams(keep=[1]), bench)) == [4, 2]
    with pytest.raises(ItemError, match=r"\[3\] are not among"):
        select_classes(known, SelectClassesParams(keep=[3]), bench)
    with pytest.raises(ItemError, match="in keep and in drop"):
        select_classes(known, SelectClassesParams(keep=[4], drop=[4]), bench)


def test_particles_of_good_classes_are_kept_and_the_others_have_a_reason(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    particles = expose(bench, 1, [0, 1, 2, 0, 1])
    rows = rows_of(particles, [0, 1, 2, 0, 3])
    rows["residual"][3] = 5.0
    known = [info.model_copy(update={"residual_median": 1.0, "residual_spread": 0.1}) for info in CLASSES]
    classes = averages(bench, *known, rows=rows)
    selection = select_classes(classes, SelectClassesParams(drop=[9]), bench)
    first = assignment_record(rows_of(particles, [1, 1, 1, 1, 1]), [info.id for info in CLASSES], version=1)
    found = take_good_classes(particles, first, classes, selection, GoodClassesParams(), bench)
    assert particles_table(found)["pid"].tolist() == [10, 12]  # by the newest assignment, not the first
    assert removed_particles_table(found)["pid"].tolist() == [11, 13, 14]
    assert {one.reason: one.count for one in found.removed if one.count} == {
        "class 7 has a low score": 1,
        "class 9 was set aside by hand": 1,
        "has more beside its class": 1,
    }
    assert {one.reason for one in found.removed if one.no_particle} == {
        "class 7 has a low score",
        "class 9 was set aside by hand",
    }


def test_the_particles_of_one_class_are_a_stream_also_where_it_has_none(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    particles = expose(bench, 1, [0])
    classes = averages(bench, *CLASSES, rows=rows_of(particles, [0]))
    selection = select_classes(classes, SelectClassesParams(), bench)
    first = assignment_record(rows_of(particles, [0]), [4], version=1)
    good = take_good_classes(particles, first, classes, selection, GoodClassesParams(), bench)
    asked = RejectedParticlesParams(reasons=["class 7 has a low score"])
    assert (good.count, take_rejected_particles(good, asked).count) == (1, 0)


def test_where_the_averages_do_not_know_a_micrograph_the_first_assignment_counts(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    particles, other = expose(bench, 1, [0, 1]), expose(bench, 2, [0])
    classes = averages(bench, *CLASSES, rows=rows_of(other, [1]))
    selection = select_classes(classes, SelectClassesParams(), bench)
    first = assignment_record(rows_of(particles, [1, 0]), [info.id for info in CLASSES], version=1)
    found = take_good_classes(particles, first, classes, selection, GoodClassesParams(), bench)
    assert particles_table(found)["pid"].tolist() == [11]


def test_a_class_that_came_after_the_selection_is_not_in_it(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    particles = expose(bench, 1, [0])
    classes = averages(bench, *CLASSES, rows=rows_of(particles, [0]))
    selection = select_classes(classes, SelectClassesParams(), bench)
    older = selection.model_copy(update={"classes": selection.classes[1:]})
    first = assignment_record(rows_of(particles, [0]), [4, 7, 2, 9], version=1)
    found = take_good_classes(particles, first, classes, older, GoodClassesParams(), bench)
    assert found.count == 0
    assert found.removed[0].reason == "class 4 is not in the selection"


def test_particles_without_a_class_are_refused(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    particles, other = expose(bench, 1, [0, 1]), expose(bench, 2, [0])
    classes = averages(bench, *CLASSES)
    selection = select_classes(classes, SelectClassesParams(), bench)
    with pytest.raises(ItemError, match="2 of 2 particles have no class"):
        take_good_classes(
            particles, assignment_record(rows_of(other, [0]), [4], version=1), classes, selection, GoodClassesParams(), bench
        )


def picked(particles: Particles, key: str) -> Particles:
    return particles.model_copy(update={"origin": "0" * 32, "picks_key": key})


def test_a_new_picking_of_a_micrograph_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    particles = expose(bench, 1, [0, 1])
    old, new = picked(particles, "a" * 32), picked(particles, "b" * 32)
    known = averages(bench, *CLASSES, rows=rows_of(old, [1, 1]), name="old")
    other = averages(bench, *CLASSES, rows=rows_of(new, [0, 0]), name="new")
    assert find_assignments(known, new, bench) is None
    assert find_assignments(known, old, bench)["class_id"].tolist() == [7, 7]
    with pytest.raises(ItemError, match="no particles in common"):
        agree_on_2d_classes([known, other], ClassConsensusParams(), bench)
    selection = select_classes(known, SelectClassesParams(), bench)
    first = assignment_record(rows_of(old, [0, 0]), [4], version=1, picks_key=old.picks_key)
    with pytest.raises(ItemError, match="of other picks"):
        take_good_classes(new, first, known, selection, GoodClassesParams(), bench)
    assert take_good_classes(old, first, known, selection, GoodClassesParams(), bench).count == 0


def test_a_classification_joins_its_particles_by_their_picks(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    particles = [picked(expose(bench, i, [0, 1, 2] * 3), f"{i}" * 32) for i in range(2)]
    params = Classify2DParams(n_classes=3, first_iterations=4, **SEARCH)
    found = classify_batch(particles, params, ACQUISITION, bench)
    assert find_assignments(found, particles[1], bench)["pid"].tolist() == list(range(10, 19))
    assert set(all_assignments(found, bench)["exposure"].tolist()) == {b"0" * 32}  # a closed set knows its exposures
    assigned = assign_to_classes(particles[0], found, StaticParams(**SEARCH), ACQUISITION, bench)
    assert assigned.picks_key == "0" * 32


def test_two_classifications_agree_on_stable_sets_and_particles_follow(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    particles = expose(bench, 1, [0] * 12)
    once = averages(bench, *CLASSES, rows=rows_of(particles, [0] * 6 + [1] * 6), name="once")
    again = averages(bench, *CLASSES, rows=rows_of(particles, [2] * 6 + [1] * 5 + [2]), name="again")
    found = agree_on_2d_classes([once, again], ClassConsensusParams(min_particles=3), bench)
    assert (found.count, found.n_stable) == (12, 11)
    assert [one.classes for one in found.sets] == [[4, 2], [7, 7]]
    assert 0.5 < found.rand_index < 1
    selection = select_classes(once, SelectClassesParams(keep=[4, 7]), bench)
    first = assignment_record(rows_of(particles, [0] * 12), [4], version=1)
    params = GoodClassesParams(max_misfit=None, max_residual=None)
    kept = take_good_classes(particles, first, once, selection, params, bench, consensus=found)
    assert {one.reason: one.count for one in kept.removed if one.count} == {"classifications disagree": 1}
    with pytest.raises(ItemError, match="at least two"):
        agree_on_2d_classes([once], ClassConsensusParams(), bench)
    with pytest.raises(ItemError, match=r"\[2\] have no assignments"):
        agree_on_2d_classes([once, averages(bench, *CLASSES, name="none")], ClassConsensusParams(), bench)


def purity(kinds: NDArray[Any], found: NDArray[Any]) -> float:
    return sum(np.unique(kinds[found == one], return_counts=True)[1].max() for one in np.unique(found)) / len(kinds)


@pytest.mark.parametrize("scale", [1.0, 37.0], ids=["in units of noise", "in grey values of another program"])
def test_new_particles_are_assigned_once_to_fixed_averages(tmp_path: Path, scale: float) -> None:
    bench = StepBench(tmp_path)
    kinds = np.random.default_rng(5).integers(0, 3, 30)
    particles = expose(bench, 1, kinds.tolist())
    write_mrc(bench.path("session:refs.mrcs"), shapes() * np.float32(scale), pixel_size_ang=PIXEL_ANG)
    classes = read_averages(bench.path("session:refs.mrcs"), "session:refs.mrcs", pixel_size_ang=None, diameter_ang=None)
    assert [(info.id, info.count) for info in classes.classes] == [(1, 1), (2, 1), (3, 1)]
    found = assign_to_classes(particles, classes, StaticParams(**SEARCH), ACQUISITION, bench)
    rows = from_block(found.block)
    assert rows["pid"].tolist() == particles_table(particles)["pid"].tolist()
    assert (rows["class_id"] == kinds + 1).mean() >= 0.9
    some = assign_to_classes(particles, classes, StaticParams(only=[2], **SEARCH), ACQUISITION, bench)
    assert set(from_block(some.block)["class_id"].tolist()) == {2}
    with pytest.raises(ItemError, match=r"\[8\] are no classes"):
        assign_to_classes(particles, classes, StaticParams(only=[8], **SEARCH), ACQUISITION, bench)


def test_averages_of_another_pixel_size_are_scaled(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    kinds = np.random.default_rng(6).integers(0, 3, 24)
    particles = expose(bench, 1, kinds.tolist())
    fine = np.kron(shapes(), np.ones((1, 2, 2), np.float32))  # half the pixel size, centred half a pixel off
    write_mrc(bench.path("session:fine.mrcs"), fine, pixel_size_ang=PIXEL_ANG / 2)
    classes = read_averages(bench.path("session:fine.mrcs"), "session:fine.mrcs", pixel_size_ang=None, diameter_ang=None)
    found = assign_to_classes(particles, classes, StaticParams(**SEARCH), ACQUISITION, bench)
    assert (from_block(found.block)["class_id"] == kinds + 1).mean() >= 0.9


def test_averages_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "refs.mrcs"
    write_mrc(path, np.zeros((2, 8, 8), np.float32), pixel_size_ang=2.0)
    with pytest.raises(FileFormatError, match="are empty"):
        read_averages(path, "session:refs.mrcs", pixel_size_ang=None, diameter_ang=None)
    write_mrc(path, np.ones((2, 8, 10), np.float32), pixel_size_ang=2.0)
    with pytest.raises(FileFormatError, match="are square"):
        read_averages(path, "session:refs.mrcs", pixel_size_ang=None, diameter_ang=None)


def test_a_closed_set_is_classified_to_convergence(tmp_path: Path) -> None:
    bench = StepBench(tmp_path, exposure=Exposure("b:1", "batches_000001"))
    kinds = np.random.default_rng(7).integers(0, 3, 60)
    sets = [expose(bench, 1, kinds[:30].tolist()), expose(bench, 2, kinds[30:].tolist())]
    params = Classify2DParams(n_classes=3, first_iterations=8, **SEARCH)
    found = classify_batch(sets, params, ACQUISITION, bench)
    assert sum(info.count for info in found.classes) == found.count == 60
    rows = np.concatenate([np.load(bench.path(table)) for table in found.tables])
    assert purity(kinds, rows["class_id"]) > 0.8
    assert not [path for path in (tmp_path / "steps").rglob("*") if path.name.endswith(("_images.npy", ".npz"))]
    with pytest.raises(ItemError, match="has no particles"):
        classify_batch([], params, ACQUISITION, bench)


def test_stream_and_set_have_one_parameter_object() -> None:
    assert step_type_of(Classify2D).params is step_type_of(classify_batch).params is Classify2DParams
    assert issubclass(Classify2DParams, StaticParams.__mro__[1])
