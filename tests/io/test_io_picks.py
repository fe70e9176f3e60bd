"""Picks and what was removed from them: one table in, two out, and both back from the store."""

import numpy as np
import pytest

from icestream.errors import ItemError
from icestream.flow.execution.calls import store_record
from icestream.io.blocks import from_block
from icestream.io.picks import make_picks, parents_table, remove_picks, removed_table, table_of_picks
from icestream.records import Picks, pack_tables, unpack_tables
from icestream.steps.picking.editing import RejectedPicksParams, take_rejected_picks

YX = np.array([[10.0, 20.0], [30.0, 5.0], [31.0, 90.0], [60.0, 61.0]])
BORDER = np.array([False, True, False, False])
CARBON = np.array([False, True, True, False])


def picked() -> Picks:
    table = table_of_picks(YX, np.array([4.0, 3.0, 2.0, 1.0]), pid=np.array([7, 8, 9, 12]))
    return make_picks(
        table, diameter_ang=90.0, removed={"at the border": BORDER, "on carbon": CARBON, "duplicate": ~CARBON & False}
    )


def test_every_pick_is_kept_or_removed_for_the_first_reason_that_applies() -> None:
    picks = picked()
    assert from_block(picks.block)["pid"].tolist() == [7, 12]
    removed = removed_table(picks)
    assert removed["pid"].tolist() == [8, 9]
    assert [picks.removed[code].reason for code in removed["reason"]] == ["at the border", "on carbon"]
    assert removed["x_px"].tolist() == [5.0, 90.0]
    assert (picks.count, picks.n_removed) == (2, 2)
    assert [(one.reason, one.count) for one in picks.removed] == [("at the border", 1), ("on carbon", 1), ("duplicate", 0)]


def test_all_tables_come_back_from_the_store() -> None:
    parents = np.zeros(2, dtype=[("pid", "<i4"), ("picker", "<i2"), ("parent_pid", "<i4"), ("score", "<f4")])
    parents["pid"], parents["picker"] = [7, 12], [1, 0]
    picks = make_picks(
        table_of_picks(YX, YX[:, 0]), diameter_ang=90.0, removed={"duplicate": CARBON}, pickers=("one", "two"), parents=parents
    )
    stored = store_record(picks)
    assert Picks.restore(stored.json, version=stored.version, block=stored.block) == picks
    assert np.array_equal(parents_table(picks), parents)
    assert unpack_tables(stored.block) == {"block": picks.block, "rejected": picks.rejected, "parents": picks.parents}


def test_a_single_table_is_stored_as_it_always_was() -> None:
    picks = make_picks(table_of_picks(YX, YX[:, 0]), diameter_ang=90.0)
    assert pack_tables(picks) == picks.block
    assert unpack_tables(picks.block) == {"block": picks.block}
    assert unpack_tables(None) == {}
    assert Picks.restore('{"count": 4, "diameter_ang": 90.0}', version=1, block=picks.block) == picks


def test_a_truncated_block_is_refused() -> None:
    stored = pack_tables(picked())
    assert stored is not None
    with pytest.raises(ValueError, match="the store has"):
        unpack_tables(stored[:-1])


def test_a_later_step_removes_in_its_own_name() -> None:
    before = picked().model_copy(update={"reference": "session:model.npz", "threshold": 3.0})
    later = remove_picks(before, {"outlier": np.array([False, True])})
    assert (later.reference, later.threshold) == ("session:model.npz", 3.0)
    assert from_block(later.block)["pid"].tolist() == [7]
    assert removed_table(later)["pid"].tolist() == [12]
    assert [one.reason for one in later.removed] == ["outlier"]
    with pytest.raises(ValueError, match=r"'outlier': its mask is of shape \(3,\); there are 2 picks"):
        remove_picks(picked(), {"outlier": np.array([False, True, False])})


def test_what_was_removed_is_a_stream_of_picks() -> None:
    rejected = take_rejected_picks(picked(), RejectedPicksParams())
    assert from_block(rejected.block)["pid"].tolist() == [8, 9]
    assert rejected.diameter_ang == 90.0
    border = take_rejected_picks(picked(), RejectedPicksParams(reasons=["at the border"]))
    assert from_block(border.block)["pid"].tolist() == [8]
    assert take_rejected_picks(picked(), RejectedPicksParams(reasons=["duplicate"])).count == 0
    with pytest.raises(ItemError, match="'on ice'; the step gives: at the border, on carbon, duplicate"):
        take_rejected_picks(picked(), RejectedPicksParams(reasons=["on ice"]))


def test_a_step_that_removes_nothing_gives_no_removed_picks() -> None:
    picks = make_picks(table_of_picks(np.ones((2, 2)), np.ones(2)), diameter_ang=90.0)
    for reasons in ([], ["on carbon"]):
        rejected = take_rejected_picks(picks, RejectedPicksParams(reasons=reasons))
        assert (rejected.count, rejected.picks_key) == (0, picks.numbered_by)
