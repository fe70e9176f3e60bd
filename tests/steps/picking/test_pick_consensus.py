"""Consensus, difference and duplicates of picks, and the quality of pickers, as steps."""

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icestream.errors import ItemError, NotYet
from icestream.flow import Exposure, InputNames, Verdict
from icestream.flow.declaration.step_type import step_type_of
from icestream.flow.workflow.contents import read_contents
from icestream.io.blocks import from_block
from icestream.io.picks import make_picks, parents_table, remove_picks, removed_table, table_of_picks
from icestream.records import Acquisition, Micrograph, PickerQuality, Picks
from icestream.steps.picking.consensus import PickConsensusParams, find_pick_consensus
from icestream.steps.picking.editing import (
    EditPicksParams,
    PickDifferenceParams,
    RemoveDuplicatesParams,
    edit_picks,
    more_edits,
    number_of_place,
    remove_duplicates,
    subtract_picks,
)
from icestream.steps.picking.import_picks import ImportPicksParams, import_picks
from icestream.steps.picking.picker_quality import LearnPickerQuality, PickerQualityParams, PickerQualityState
from icestream.testing.context import StepBench

ACQUISITION = Acquisition(pixel_size_ang=2.0)
MICROGRAPH = Micrograph(image="session:mic.mrc", height_px=2000, width_px=2000, bin=1.0)
NAMES = ("blob", "template", "log")


def picks_at(yx: Any, score: Any = None, *, first_pid: int = 0) -> Picks:
    positions = np.asarray(yx, dtype=float).reshape(-1, 2)
    scores = np.ones(len(positions)) if score is None else np.asarray(score, dtype=float)
    return make_picks(table_of_picks(positions, scores, pid=np.arange(first_pid, first_pid + len(positions))), diameter_ang=100.0)


def draw(seed: int, *, n: int = 120) -> tuple[list[Picks], np.ndarray]:
    """Three pickers with different recall and numbers of false picks; true picks score higher."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(50, 1950, 100.0), np.arange(50, 1950, 100.0)), axis=-1).reshape(-1, 2)
    truth = grid[rng.permutation(len(grid))[:n]]
    found = []
    for recall, n_false in ((0.9, 4), (0.8, 15), (0.75, 25)):
        seen = truth[rng.random(n) < recall]
        places = np.concatenate([seen + rng.normal(0, 3, seen.shape), rng.uniform(0, 2000, (n_false, 2))])
        found.append(picks_at(places, np.r_[rng.normal(2, 1, len(seen)), rng.normal(0, 1, n_false)], first_pid=5))
    return found, truth


def agree(picks: list[Picks], names: tuple[str, ...] = NAMES, missing: tuple[str, ...] = (), **params: Any) -> Picks:
    quality = params.pop("quality", None)
    told = InputNames({"picks": names}, {"picks": missing})
    return find_pick_consensus(MICROGRAPH, picks, quality, PickConsensusParams(**params), ACQUISITION, told)


def f1(picks: Picks, truth: np.ndarray) -> float:
    table = from_block(picks.block)
    yx = np.stack([table["y_px"], table["x_px"]], axis=1)
    hits = int((np.hypot(*(yx[:, None] - truth[None]).transpose(2, 0, 1)).min(axis=0) < 15).sum()) if len(yx) else 0
    return 2 * hits / (len(yx) + len(truth))


@pytest.mark.parametrize(
    ("rule", "votes", "kept"),
    [("all", 9, [1]), ("any", 9, [1, 2, 3, 4]), ("at_least", 2, [1, 2]), ("exactly", 2, [2]), ("exactly", 1, [3, 4])],
)
def test_rules_count_votes(rule: str, votes: int, kept: list[int]) -> None:
    places = {number: (100.0 * number, 50.0) for number in (1, 2, 3, 4)}
    pickers = [picks_at([places[n] for n in found]) for found in ((1, 2, 3), (1, 2), (1, 4))]
    consensus = agree(pickers, rule=rule, votes=votes)
    table = from_block(consensus.block)
    assert sorted(round(y / 100) for y in table["y_px"]) == kept
    assert consensus.count + consensus.n_removed == 4
    assert consensus.consensus.jaccard == 0.25


def test_a_place_keeps_its_parents_and_those_removed_too() -> None:
    pickers = [picks_at([(100, 100), (300, 300)], [5, 6]), picks_at([(104, 100)], [0.3], first_pid=40)]
    consensus = agree(pickers, NAMES[:2], rule="all")
    (kept,) = from_block(consensus.block)
    assert (kept["y_px"], kept["x_px"]) == (102.0, 100.0)
    parents = parents_table(consensus)
    mine = parents[parents["pid"] == kept["pid"]]
    assert mine["picker"].tolist() == [0, 1]
    assert mine["parent_pid"].tolist() == [0, 40]
    assert mine["score"].tolist() == pytest.approx([5, 0.3])
    (removed,) = removed_table(consensus)
    assert parents[parents["pid"] == removed["pid"]]["parent_pid"].tolist() == [1]
    assert [one.reason for one in consensus.removed if one.count] == ["too few pickers"]
    assert consensus.pickers == ("blob", "template")


@pytest.mark.parametrize("rule", ["probability", "at_least"])
def test_the_order_of_the_pickers_changes_nothing(rule: str) -> None:
    pickers, _ = draw(1)
    whole = from_block(agree(pickers, rule=rule).block)
    for order in itertools.permutations(range(3)):
        other = from_block(agree([pickers[one] for one in order], tuple(NAMES[one] for one in order), rule=rule).block)
        assert np.array_equal(other["y_px"], whole["y_px"])
        assert np.allclose(other["score"], whole["score"], atol=1e-5)


def test_the_probable_consensus_is_better_than_every_picker_and_counts_them() -> None:
    for seed in range(5):
        pickers, truth = draw(seed)
        consensus = agree(pickers)
        assert f1(consensus, truth) > max(f1(one, truth) for one in pickers)
        figures = consensus.consensus.pickers
        assert figures[0].precision > figures[2].precision
        score = from_block(consensus.block)["score"]
        assert (np.diff(score) <= 0).all()
        assert score.min() >= 0.5
        assert score.max() <= 1


def test_a_picker_that_found_nothing_or_is_missing_does_not_stop_the_others() -> None:
    pickers, truth = draw(2)
    empty = agree([pickers[0], pickers[1], picks_at([])])
    assert f1(empty, truth) > 0.85
    assert empty.consensus.pickers[2].n_picks == 0
    two = agree(pickers[:2], NAMES[:2], ("log",))
    assert f1(two, truth) > 0.85
    assert two.consensus.missing == ("log",)
    alone = agree(pickers[:1], NAMES[:1], ("template", "log"))
    assert alone.count == pickers[0].count
    assert agree([picks_at([])] * 3).count == 0


def learn(consensuses: list[Picks], *, entries: int = 1) -> tuple[PickerQualityState, PickerQuality]:
    step, params, bench = LearnPickerQuality(), PickerQualityParams(), StepBench(None)  # type: ignore[arg-type]
    state = step.start(params, bench)
    for part in np.array_split(np.arange(len(consensuses)), entries):
        chosen = [consensuses[one] for one in part]
        exposures = [Exposure(f"{one:032x}", f"mic_{one}") for one in part]
        state = step.add(state, exposures, chosen, params, bench).state
        state = PickerQualityState.restore(state.model_dump_json(), version=1, block=None)
    quality = step.emit(state, params, bench)
    assert isinstance(quality, PickerQuality)
    return state, quality


def test_while_no_picker_found_anything_there_is_no_quality_and_no_failure() -> None:
    step, params, bench = LearnPickerQuality(), PickerQualityParams(), StepBench(None)  # type: ignore[arg-type]
    nothing = [agree([picks_at([])] * 3, rule="any")] * 2
    state = step.add(step.start(params, bench), [Exposure("0", "a"), Exposure("1", "b")], nothing, params, bench).state
    said = step.emit(state, params, bench)
    assert isinstance(said, Verdict) and not said.accepted
    assert "no picker found anything on 2 micrographs" in (said.reason or "")
    found = [agree(draw(seed)[0], rule="any") for seed in (20, 21)]
    after = step.add(state, [Exposure("2", "c"), Exposure("3", "d")], found, params, bench).state
    fresh = step.add(step.start(params, bench), [Exposure("2", "c"), Exposure("3", "d")], found, params, bench).state
    assert (after.names, after.edges, after.patterns) == (fresh.names, fresh.edges, fresh.patterns)
    assert after.n_micrographs == 4


def test_the_quality_of_pickers_is_learnt_over_the_session_and_used() -> None:
    drawn = [draw(seed) for seed in range(20, 32)]
    _, quality = learn([agree(pickers, rule="any") for pickers, _ in drawn])
    assert [one.name for one in quality.pickers] == sorted(NAMES)
    recall = {one.name: one.recall for one in quality.pickers}
    assert [recall[name] for name in NAMES] == pytest.approx([0.9, 0.8, 0.75], abs=0.03)
    assert quality.particles == pytest.approx(120, rel=0.05)
    assert quality.pickers[0].score_ratio[-1] > quality.pickers[0].score_ratio[0]
    gained = []
    for seed in range(40, 48):
        new, truth = draw(seed)
        informed = agree(new, quality=quality)
        assert informed.consensus.n_learnt == 12
        gained.append(f1(informed, truth) - f1(new[0], truth))
    assert np.mean(gained) > 0.02


def test_a_trusted_picker_keeps_more_of_what_it_sees_alone() -> None:
    drawn = [draw(seed) for seed in range(20, 28)]

    def alone(trusted: list[str]) -> int:
        kept = 0
        for pickers, _ in drawn:
            consensus = agree(pickers, trusted=trusted)
            parents = parents_table(consensus)
            places, votes = np.unique(parents["pid"], return_counts=True)
            single = places[votes == 1]
            mine = parents["pid"][(parents["picker"] == 2) & np.isin(parents["pid"], single)]
            kept += int(np.isin(mine, from_block(consensus.block)["pid"]).sum())
        return kept

    assert alone(["log"]) > alone([])
    assert alone(["nobody"]) == alone([])


def test_one_wrecked_picker_costs_little_on_its_micrograph() -> None:
    drawn = [draw(seed) for seed in range(20, 32)]
    _, quality = learn([agree(pickers, rule="any") for pickers, _ in drawn])
    lost = []
    for seed in range(50, 56):
        pickers, truth = draw(seed)
        turned = np.stack([2000 - from_block(pickers[0].block)["y_px"] + 37, from_block(pickers[0].block)["x_px"]], axis=1)
        wrecked = picks_at(turned, from_block(pickers[0].block)["score"])
        two = f1(agree(pickers[1:], NAMES[1:], quality=quality), truth)
        told = agree([wrecked, *pickers[1:]], quality=quality)
        assert told.consensus.disregarded == ("blob",)
        assert told.consensus.pickers[0].recall is None
        assert agree(pickers, quality=quality).consensus.disregarded == ()
        lost.append(two - f1(told, truth))
    assert np.mean(lost) < 0.01


def test_the_estimate_is_that_of_its_log_and_a_picker_may_come_late() -> None:
    drawn = [draw(seed)[0] for seed in range(20, 30)]
    late = [agree(one[:2], NAMES[:2], rule="any") for one in drawn[:5]] + [agree(one, rule="any") for one in drawn[5:]]
    state, quality = learn(late, entries=2)
    assert (state, quality) == learn(late, entries=2)
    assert state.names == ("blob", "template", "log")
    assert {one.name: one.n_picks for one in quality.pickers}["log"] == sum(one[2].count for one in drawn[5:])
    assert json.loads(quality.model_dump_json())["n_micrographs"] == 10


def test_quality_is_only_learnt_of_a_consensus() -> None:
    with pytest.raises(ItemError, match="mic_0: its picks are of no consensus; connect a pick_consensus"):
        learn([picks_at([(1, 1)])])


def test_the_radius_is_of_the_diameter_or_given() -> None:
    pickers = [picks_at([(100, 100)]), picks_at([(100, 118)])]  # 36 Å apart; 0.4 diameters are 40 Å
    assert agree(pickers, NAMES[:2], rule="all").count == 1
    assert agree(pickers, NAMES[:2], rule="all", radius_ang=35).count == 0
    assert agree(pickers, NAMES[:2], rule="all", radius_px=18.5, radius_ang=1).count == 1
    told = InputNames({"picks": NAMES[:2]}, {"picks": ()})
    with pytest.raises(ItemError, match="pixel_size_ang"):
        find_pick_consensus(MICROGRAPH, pickers, None, PickConsensusParams(), Acquisition(), told)


def test_of_duplicates_the_best_stays_with_its_number() -> None:
    picks = picks_at([(100, 100), (100, 120), (100, 160)], [1, 3, 2], first_pid=7)  # 40 Å, 80 Å; 0.6 diameters are 60 Å
    found = remove_duplicates(MICROGRAPH, picks, RemoveDuplicatesParams(), ACQUISITION)
    assert from_block(found.block)["pid"].tolist() == [8, 9]
    assert removed_table(found)["pid"].tolist() == [7]
    assert [(one.reason, one.count) for one in found.removed] == [("duplicate", 1)]
    assert remove_duplicates(MICROGRAPH, found, RemoveDuplicatesParams(), ACQUISITION).count == 2


def test_the_difference_is_what_no_other_set_has() -> None:
    picks, others = picks_at([(100, 100), (300, 300), (500, 500)]), [picks_at([(110, 100)]), picks_at([(500, 520.5)])]
    found = subtract_picks(MICROGRAPH, picks, others, PickDifferenceParams(), ACQUISITION)  # 40 Å are 20 px
    assert from_block(found.block)["pid"].tolist() == [1, 2]
    assert subtract_picks(MICROGRAPH, picks, [], PickDifferenceParams(), ACQUISITION).count == 3
    assert subtract_picks(MICROGRAPH, picks_at([]), others, PickDifferenceParams(), ACQUISITION).count == 0
    none = subtract_picks(MICROGRAPH, picks, [picks], PickDifferenceParams(radius_px=1), ACQUISITION)
    assert (none.count, none.n_removed) == (0, 3)


def test_a_person_adds_and_removes_by_place() -> None:
    picks = picks_at([(100, 100), (300, 300)], [2, 5], first_pid=4)
    edited = edit_picks(picks, EditPicksParams(add=[(50.5, 60)], remove=[(303, 296)]))
    table = from_block(edited.block)
    assert table["pid"].tolist() == [4, number_of_place((50.5, 60))]
    assert (table["y_px"][1], table["x_px"][1], table["score"][1]) == (50.5, 60, 5)
    assert removed_table(edited)["pid"].tolist() == [5]
    same = edit_picks(picks, EditPicksParams())
    assert same.block == picks.block
    for none_is_near in (picks, picks_at([])):  # picked again, the one that was removed may be gone already
        assert edit_picks(none_is_near, EditPicksParams(remove=[(700, 1)])).block == none_is_near.block
    cleaned = remove_picks(picks, {"on dirt": np.array([False, True])})
    added = edit_picks(cleaned, EditPicksParams(add=[(5, 6), (5.2, 6.4)]))  # the same pixel twice
    assert from_block(added.block)["pid"].tolist() == [4, 2**30 + 2**15 * 5 + 6]
    assert edit_picks(added, EditPicksParams(add=[(5, 6)])).block == added.block
    assert {one.numbered_by for one in (cleaned, added, edited)} == {picks.numbered_by}


def test_edits_add_up_and_one_that_was_added_is_forgotten() -> None:
    picks = picks_at([(100, 100), (300, 300)], first_pid=4)
    first = more_edits(EditPicksParams(), picks.block, add=[(50.1, 60)], remove=[4])
    assert (first.add, first.remove) == ([(50.1, 60)], [(100, 100)])
    after = edit_picks(picks, first)
    second = more_edits(first, after.block, add=[], remove=[number_of_place((50.1, 60))])
    assert (second.add, second.remove) == ([], [(100, 100)])


def test_an_added_pick_keeps_its_number_whatever_else_is_added_forgotten_and_withdrawn() -> None:
    picks = picks_at([(100, 100), (300, 300)])

    def numbers(edits: EditPicksParams) -> dict[tuple[float, float], int]:
        table = from_block(edit_picks(picks, edits).block)[2:]
        return {(float(row["y_px"]), float(row["x_px"])): int(row["pid"]) for row in table}

    three = more_edits(EditPicksParams(), picks.block, add=[(10, 20), (30, 40), (32767, 32767)], remove=[])
    known = numbers(three)
    assert len(known) == 3
    two = more_edits(three, edit_picks(picks, three).block, add=[], remove=[known[10, 20]])
    assert numbers(two) == {place: pid for place, pid in known.items() if place != (10, 20)}
    other = more_edits(two, edit_picks(picks, two).block, add=[(50, 60)], remove=[])
    assert known[10, 20] not in numbers(other).values()
    after_withdrawing = more_edits(EditPicksParams(), picks.block, add=[(50, 60), (30, 40)], remove=[])
    assert numbers(after_withdrawing).items() <= numbers(other).items()


def test_a_pick_far_outside_is_not_added() -> None:
    for place in ((-3, 5), (5, 32768)):
        with pytest.raises(ItemError, match="cannot be added at"):
            more_edits(EditPicksParams(), picks_at([]).block, add=[place], remove=[])


def import_from(folder: Path, **params: Any) -> Picks:
    bench = StepBench(folder, roots={"picks": folder}, exposure=Exposure("0" * 32, "mic_1"))
    micrograph = Micrograph(image="session:mic.mrc", height_px=100, width_px=200, bin=2.0)
    return import_picks(micrograph, ImportPicksParams(diameter_ang=80, **params), ACQUISITION, bench)


def placed(picks: Picks) -> list[tuple[float, float]]:
    return [(float(row["y_px"]), float(row["x_px"])) for row in from_block(picks.block)]


def test_imported_positions_are_those_of_the_micrograph(tmp_path: Path) -> None:
    (tmp_path / "mic_1_autopick.csv").write_text("x,y,score\n21,11,0.5\n31,91,0.9\n500,5,1\n", encoding="utf-8")
    assert placed(import_from(tmp_path)) == [(91, 31), (11, 21)]  # the best first, one is outside
    outside = import_from(tmp_path)
    assert [(one.reason, one.count) for one in outside.removed if one.count] == [("outside the micrograph", 1)]
    assert placed(import_from(tmp_path, flip_y=True)) == [(8, 31), (88, 21)]
    assert placed(import_from(tmp_path, pixels_of="raw"))[-1] == (5.25, 10.25)
    assert placed(import_from(tmp_path, picked_pixel_ang=8.0))[-1] == (22.5, 42.5)  # the micrograph has 4 Å
    assert placed(import_from(tmp_path, position="corner", box_px=10))[-1] == (16, 26)
    assert placed(import_from(tmp_path, min_score=0.8)) == [(91, 31)]
    with pytest.raises(ItemError, match="a corner needs box_px"):
        import_from(tmp_path, position="corner")


def test_a_file_of_all_micrographs_is_divided_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("image_name\tx_coord\ty_coord\nmic_1\t3\t4\nmic_12\t5\t6\n", encoding="utf-8")
    assert placed(import_from(tmp_path, file="picks:all.txt")) == [(4, 3)]
    (tmp_path / "none.txt").write_text("x,y\n3,4\n", encoding="utf-8")
    with pytest.raises(ItemError, match="it does not name the micrograph of each row"):
        import_from(tmp_path, file="picks:none.txt")
    (tmp_path / "others.txt").write_text("image_name\tx_coord\ty_coord\nmic_12\t5\t6\n", encoding="utf-8")
    nothing = import_from(tmp_path, file="picks:others.txt")
    assert (nothing.count, nothing.no_picks) == (0, "not in the file")
    with pytest.raises(ValueError, match="give one of them"):
        ImportPicksParams(diameter_ang=80, file="picks:all.txt", growing_file="all.txt")


def test_the_content_of_a_complete_file_counts_and_that_of_a_growing_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("image_name\tx_coord\ty_coord\nmic_1\t3\t4\n", encoding="utf-8")
    roots = {"picks": str(tmp_path)}
    step_type = step_type_of(import_picks)
    before = read_contents(step_type, {"file": "picks:all.txt"}, roots)
    assert before.keys() == {"file.content"}
    (tmp_path / "all.txt").write_text("image_name\tx_coord\ty_coord\nmic_1\t3\t5\n", encoding="utf-8")
    assert read_contents(step_type, {"file": "picks:all.txt"}, roots) != before
    assert read_contents(step_type, {"growing_file": "all.txt"}, roots) == {}


def test_a_growing_file_is_waited_for_until_it_has_all_picks_of_the_micrograph(tmp_path: Path) -> None:
    def write(rows: str, *, rested_s: float = 0.0) -> None:
        (tmp_path / "all.txt").write_text(f"image_name\tx_coord\ty_coord\n{rows}", encoding="utf-8")
        at = time.time() - rested_s
        os.utime(tmp_path / "all.txt", (at, at))

    def refused(told: str) -> None:
        with pytest.raises(NotYet, match=told):
            import_from(tmp_path, growing_file="all.txt")
        with pytest.raises(ItemError, match=told) as caught:
            import_from(tmp_path, growing_file="all.txt", wait=False)
        assert not isinstance(caught.value, NotYet)

    refused(r"there is no such file \(yet\)")
    write("mic_2\t5\t6\n", rested_s=1000)
    refused(r"has no picks of mic_1 \(yet\); it names mic_2\. If this micrograph has another name there")
    write("mic_2\t5\t6\nmic_1\t3\t4\n")
    refused("is still being written")
    write("mic_2\t5\t6\nmic_1\t3\t4\n", rested_s=60)
    assert placed(import_from(tmp_path, growing_file="all.txt")) == [(4, 3)]
    write("mic_1\t3\t4\nmic_3\t5\n")  # its last row is being written
    refused(r"\(yet\)")
    write("mic_1\t3\t4\nmic_3\t5\t1\n")
    assert placed(import_from(tmp_path, growing_file="all.txt")) == [(4, 3)]


def test_a_file_that_is_not_there_or_there_twice_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotYet, match=r"no file of picks is called mic_1\.star"):
        import_from(tmp_path)
    for name in ("mic_1_a.csv", "mic_1_b.csv"):
        (tmp_path / name).write_text("x,y\n3,4\n", encoding="utf-8")
    with pytest.raises(ItemError, match=r"several files may have the picks of mic_1: mic_1_a\.csv, mic_1_b\.csv"):
        import_from(tmp_path)
