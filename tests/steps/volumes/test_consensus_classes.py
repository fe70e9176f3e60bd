"""The consensus of classifications as a step, and the particles of its groups."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.errors import ItemError
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import read_stack, write_mrc
from icestream.io.particles import particles_table
from icestream.io.picture import read_picture
from icestream.records import ClassAverages, Classification, ClassInfo, Particles
from icestream.steps.volumes.consensus_classes import (
    ConsensusClassesParams,
    GroupParticlesParams,
    find_consensus_classes,
    take_group_particles,
)
from icestream.testing.context import StepBench

BOX, EXPOSURES, EACH = 16, 10, 150
N = EXPOSURES * EACH
TRUTH = np.random.default_rng(0).choice(2, size=N, p=[0.6, 0.4])


def exposure(index: int) -> Particles:
    """Particles that no image is needed of."""
    table = np.zeros(EACH, dtype=dtype_of(Particles.block_columns))
    table["pid"], table["slice"] = np.arange(EACH) + 5, np.arange(EACH)
    return Particles(
        stack=f"session:{index}.mrcs", count=EACH, box_px=BOX, bin=1.0, inverted=True, phase_flipped=False,
        micrograph=f"session:m{index}.mrc", block=to_block(table),
    )  # fmt: skip


PARTICLES = [exposure(index) for index in range(EXPOSURES)]


def classification(
    bench: StepBench, name: str, votes: NDArray[Any], ids: list[int], *, sure: NDArray[Any] | None = None
) -> Classification:
    """A classification of all particles; ``votes`` are places of classes, negative where it lacks the particle."""
    columns = [("micrograph", "S32"), ("pid", "<i8"), ("class_id", "<i4")]
    table = np.zeros(N, dtype=columns + ([("class_probability", "<f4")] if sure is not None else []))
    table["micrograph"] = np.repeat([one.table_key for one in PARTICLES], EACH)
    table["pid"] = np.tile(particles_table(PARTICLES[0])["pid"], EXPOSURES)
    table["class_id"] = votes
    if sure is not None:
        table["class_probability"] = sure
    np.save(bench.path(f"session:{name}.npy"), table[votes >= 0][::-1])
    images = np.arange(len(ids), dtype=np.float32)[:, None, None] + np.random.default_rng(1).normal(size=(len(ids), BOX, BOX))
    write_mrc(bench.path(f"session:{name}.mrcs"), images.astype(np.float32), pixel_size_ang=4.0)
    return ClassAverages(
        stack=f"session:{name}.mrcs", picture=None, count=int((votes >= 0).sum()), box_px=BOX, bin=1.0, version=1,
        classes=[ClassInfo(id=one, count=int((votes == place).sum())) for place, one in enumerate(ids)],
        tables=[f"session:{name}.npy"],
    )  # fmt: skip


def three(bench: StepBench) -> list[Classification]:
    """Three classifications with independent errors: of 2, 3 and 2 classes; the last lacks some."""
    rng = np.random.default_rng(2)
    votes = [np.where(rng.random(N) < error, 1 - TRUTH, TRUTH) for error in (0.1, 0.12, 0.12)]
    votes[1] = np.where((votes[1] == 0) & (rng.random(N) < 0.5), 2, votes[1])
    votes[2] = np.where(rng.random(N) < 0.2, -1, votes[2])
    ids = ([7, 3], [0, 1, 2], [5, 9])
    return [classification(bench, f"c{run}", one, list(ids[run])) for run, one in enumerate(votes)]


def test_votes_give_groups_and_the_undecided(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    found = find_consensus_classes(three(bench), ConsensusClassesParams(), bench)
    assert (found.count, found.n_decided + found.n_undecided) == (N, N)
    assert len(found.groups) == 2
    assert found.groups[0].classes[0] == 3  # groups are in the order of the first classification's ids
    assert found.groups[1].classes[0] == 7
    assert sum(one.count for one in found.groups) == found.n_decided
    assert sum(one.undecided for one in found.groups) == found.n_undecided > 0
    assert [(one.n_classes, one.counted) for one in found.classifications] == [(2, True), (3, True), (2, True)]
    assert found.classifications[2].count < N
    assert all(0.8 < (one.reliability or 0) < 0.97 for one in found.classifications)
    right = 0
    for index, one in enumerate(PARTICLES):
        kept = take_group_particles(one, found, GroupParticlesParams(groups=[1]), bench)
        pids = particles_table(kept)["pid"]
        right += int((TRUTH[index * EACH : (index + 1) * EACH][pids - 5] == 0).sum())
    assert right == pytest.approx(found.groups[1].count, rel=0.06)
    intersections = found.intersections
    assert sum(one.count for one in intersections) == found.classifications[2].count
    assert intersections[0].chance < 1e-6
    assert intersections[0].count > 1.5 * intersections[0].expected


def test_the_streams_of_groups_and_of_the_undecided_are_all_particles(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    found = find_consensus_classes(three(bench), ConsensusClassesParams(), bench)
    one = PARTICLES[4]
    parts = [
        take_group_particles(one, found, params, bench)
        for params in (
            GroupParticlesParams(groups=[0]),
            GroupParticlesParams(groups=[1]),
            GroupParticlesParams(take="undecided"),
        )
    ]
    pids = np.concatenate([particles_table(part)["pid"] for part in parts])
    assert sorted(pids.tolist()) == particles_table(one)["pid"].tolist()
    assert take_group_particles(one, found, GroupParticlesParams(), bench).count == parts[0].count + parts[1].count
    assert {r.reason: r.count for r in parts[0].removed} == {
        "no classification has it": 0,
        "undecided": parts[2].count,
        "in another group": parts[1].count,
    }
    with pytest.raises(ItemError, match="no group 4"):
        take_group_particles(one, found, GroupParticlesParams(groups=[4]), bench)
    unknown = exposure(77)
    assert take_group_particles(unknown, found, GroupParticlesParams(take="undecided"), bench).removed[0].count == EACH


def test_surer_classifications_count_more(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    rng = np.random.default_rng(3)
    evidence = (1 - 2 * TRUTH)[:, None] * 1.2 + rng.normal(size=(N, 3))
    votes, sure = (evidence < 0).astype(int), 1 / (1 + np.exp(-np.abs(evidence)))
    plain = [classification(bench, f"p{run}", votes[:, run], [0, 1]) for run in range(3)]
    with_sureness = [classification(bench, f"s{run}", votes[:, run], [0, 1], sure=sure[:, run]) for run in range(3)]
    tables = []
    for classes in (plain, with_sureness):
        found = find_consensus_classes(classes, ConsensusClassesParams(), bench)
        tables.append(np.load(bench.path(found.table)))
    order = np.argsort(np.repeat([one.table_key for one in PARTICLES], EACH), kind="stable")
    wrong = [int((table["group"] != TRUTH[order]).sum()) for table in tables]
    assert wrong[1] < wrong[0]


def test_scipions_rule_leaves_out_what_a_classification_lacks(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    params = ConsensusClassesParams(rule="intersections", n_groups=2, min_class_size=3)
    found = find_consensus_classes(three(bench), params, bench)
    assert len(found.groups) == 2
    assert found.n_undecided >= N - found.classifications[2].count
    assert found.groups[0].stability is None
    assert found.classifications[0].reliability is None


def test_classifications_without_anything_in_common_have_no_groups(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    rng = np.random.default_rng(4)
    noise = [classification(bench, f"n{run}", rng.integers(0, 2, N), [0, 1]) for run in range(2)]
    found = find_consensus_classes(noise, ConsensusClassesParams(), bench)
    assert (found.groups, found.n_decided, found.n_undecided) == ([], 0, N)
    kept = take_group_particles(PARTICLES[0], found, GroupParticlesParams(take="undecided"), bench)
    assert kept.count == EACH
    with pytest.raises(ItemError, match="at least two"):
        find_consensus_classes(noise[:1], ConsensusClassesParams(), bench)
    blind = noise[1].model_copy(update={"tables": []})
    with pytest.raises(ItemError, match=r"\[2\] have no assignments"):
        find_consensus_classes([noise[0], blind], ConsensusClassesParams(), bench)


@pytest.mark.parametrize("rule", ["votes", "intersections"])
def test_a_classification_that_is_linked_twice_counts_once(rule: Any, tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    classes, params = three(bench), ConsensusClassesParams(rule=rule)
    once = find_consensus_classes(classes, params, bench)
    table = np.load(bench.path(once.table))
    bench.path("session:copy.npy").write_bytes(bench.path(classes[1].tables[0]).read_bytes())
    copy = classes[1].model_copy(update={"tables": ["session:copy.npy"]})
    twice = find_consensus_classes([classes[0], classes[0], *classes[1:], copy], params, bench)
    assert (twice.repeated, twice.n_repeated, once.n_repeated) == ([2, 5], 2, None)
    assert [one.counted for one in twice.classifications] == [True, False, True, True, False]
    assert np.array_equal(np.load(bench.path(twice.table)), table)
    assert [one.classes for one in twice.intersections] == [
        [one.classes[run] for run in (0, 0, 1, 2, 1)] for one in once.intersections
    ]
    with pytest.raises(ItemError, match="same one"):
        find_consensus_classes([copy, classes[1]], params, bench)


def test_pictures_show_groups_in_rows_and_the_first_classification_on_top(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    classes = three(bench)
    found = find_consensus_classes(classes, ConsensusClassesParams(), bench)
    board = read_picture(bench.path(found.picture))
    assert board.shape[1] == 3 * BOX + 2 * 2
    assert board.shape[0] == 2 * BOX + 2
    assert read_stack(bench.path(classes[0].stack)).shape == (2, BOX, BOX)
    agreement = np.asarray(read_picture(bench.path(found.agreement_picture)), dtype=float)[::-1]  # row 0 on top
    third = agreement.shape[0] // 3
    diagonal = [agreement[i * third + third // 2, i * third + third // 2].max() for i in range(3)]
    assert min(diagonal) > 250
    assert agreement[third // 2, third + third // 2].max() < 200
