"""Picks as tables: made from one, with what was removed and why beside what is kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.records import PickConsensus, Picks, Removed

_COLUMNS = tuple(column.name for column in Picks.block_columns)


def table_of_picks(
    yx_px: NDArray[np.floating[Any]], score: NDArray[np.floating[Any]], *, pid: NDArray[np.integer[Any]] | None = None
) -> NDArray[Any]:
    """Return positions ``(n, 2)`` and scores ``(n,)`` as the table of `Picks`, numbered from 0 where no numbers are given."""
    table = np.zeros(len(score), dtype=dtype_of(Picks.block_columns))
    table["pid"] = np.arange(len(score)) if pid is None else pid
    table["y_px"], table["x_px"], table["score"] = yx_px[:, 0], yx_px[:, 1], score
    return table


def make_picks(
    table: NDArray[Any],
    *,
    diameter_ang: float,
    removed: Mapping[str, NDArray[np.bool_]] | None = None,
    pickers: Sequence[str] = (),
    parents: NDArray[Any] | None = None,
    consensus: PickConsensus | None = None,
) -> Picks:
    """Make picks of a table, and keep beside them those rows that are removed.

    Parameters
    ----------
    table
        Rows ``pid, y_px, x_px, score``; further columns are left out.
    removed
        Reason → which rows ``(n,)`` it removes, in plain words, as ``{"at the border": mask}``. A row that several reasons remove
        counts for the first of them. Every reason that was asked is told, also where it removed nothing.
    pickers, parents, consensus
        Of a consensus: its pickers, its rows ``pid, picker, parent_pid, score``, and how far they agree.

    Raises
    ------
    ValueError
        A mask is not of as many rows as the table.
    """
    code = first_reason(removed or {}, len(table))  # (n,)
    rejected = np.zeros(int((code >= 0).sum()), dtype=dtype_of(Picks.further_columns["rejected"]))
    for name in _COLUMNS:
        rejected[name] = table[name][code >= 0]
    rejected["reason"] = code[code >= 0]
    kept = np.zeros(int((code < 0).sum()), dtype=dtype_of(Picks.block_columns))
    for name in _COLUMNS:
        kept[name] = table[name][code < 0]
    return Picks(
        count=len(kept),
        diameter_ang=diameter_ang,
        n_removed=len(rejected),
        removed=tuple(Removed(reason=reason, count=int((code == number).sum())) for number, reason in enumerate(removed or {})),
        pickers=tuple(pickers),
        consensus=consensus,
        block=to_block(kept),
        rejected=to_block(rejected) if len(rejected) else None,
        parents=None if parents is None else to_block(parents),
    )


def remove_picks(picks: Picks, removed: Mapping[str, NDArray[np.bool_]]) -> Picks:
    """Return picks without those that are removed, which it keeps beside them; numbers, and what is known of the picks, stay.

    ``removed`` is as for `make_picks`, its masks over the rows of the picks. What an earlier step removed stays with that step.
    """
    left = make_picks(from_block(picks.block), diameter_ang=picks.diameter_ang, removed=removed)
    changed = {name: getattr(left, name) for name in ("count", "n_removed", "removed", "block", "rejected")}
    return picks.model_copy(update={**changed, "picks_key": picks.numbered_by})


def with_table(picks: Picks, table: NDArray[Any]) -> Picks:
    """Return picks with another table, and what is known of them; those that they were keep their numbers."""
    return picks.model_copy(update={"count": len(table), "block": to_block(table), "picks_key": picks.numbered_by})


def picks_table(picks: Picks) -> NDArray[Any]:
    """Return the picks: rows ``pid, y_px, x_px, score``."""
    return from_block(picks.block)


def read_table(block: bytes) -> NDArray[Any]:
    """Return the table of picks in the bytes of a block."""
    return from_block(block)


def positions_of(picks: Picks) -> NDArray[np.float64]:
    """Return the positions of picks, ``(n, 2)``."""
    table = picks_table(picks)
    return np.stack([table["y_px"], table["x_px"]], axis=1).astype(np.float64)


def empty_parents(n_rows: int) -> NDArray[Any]:
    """Return a table for the parents of a consensus, to be filled: rows ``pid, picker, parent_pid, score``."""
    return np.zeros(n_rows, dtype=dtype_of(Picks.further_columns["parents"]))


def removed_table(picks: Picks) -> NDArray[Any]:
    """Return the picks that a step removed: rows ``pid, y_px, x_px, score, reason``, where a reason is a row of ``removed``."""
    if picks.rejected is None:
        return np.zeros(0, dtype=dtype_of(Picks.further_columns["rejected"]))
    return from_block(picks.rejected)


def parents_table(picks: Picks) -> NDArray[Any]:
    """Return which picks of which picker a consensus made its particles of; no rows where it is none."""
    if picks.parents is None:
        return empty_parents(0)
    return from_block(picks.parents)


def first_reason(removed: Mapping[str, NDArray[np.bool_]], n_rows: int) -> NDArray[np.int16]:
    """Return the number of the first reason that removes each row, -1 where none does."""
    code = np.full(n_rows, -1, dtype=np.int16)
    for number, (reason, mask) in enumerate(removed.items()):
        if mask.shape != (n_rows,):
            raise ValueError(f"{reason!r}: its mask is of shape {mask.shape}; there are {n_rows} picks")
        code[mask.astype(bool) & (code < 0)] = number
    return code
