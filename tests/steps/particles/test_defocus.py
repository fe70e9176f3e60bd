"""Samples in which every defocus is equally frequent."""

from pathlib import Path

import numpy as np
import pytest

from icestream.errors import ItemError
from icestream.flow import Exposure
from icestream.flow.declaration.context import Progress
from icestream.io.blocks import dtype_of, to_block
from icestream.io.particles import particles_table, removed_particles_table
from icestream.records import CtfFit, DefocusDistribution, Particles
from icestream.steps.particles.defocus import (
    DefocusDistributionParams,
    DefocusDistributions,
    DefocusSampleParams,
    DefocusState,
    balance_defocus,
    kept_shares,
    sample_by_defocus,
    water_level,
)
from icestream.testing.context import StepBench

COUNTS = np.array([30, 400, 1000, 150, 0, 20])
DISTRIBUTION = DefocusDistribution(first_range=10, bin_um=0.1, counts=COUNTS.tolist())


def middle_ang(number: np.ndarray | int) -> np.ndarray:
    return (np.asarray(number, dtype=np.float64) + 10.5) * 1000.0


def fit(defocus_ang: float) -> CtfFit:
    return CtfFit(
        defocus_u_ang=defocus_ang + 100,
        defocus_v_ang=defocus_ang - 100,
        astigmatism_angle_deg=0,
        score=0.3,
        resolution_ang=5,
    )


def particles_at(defocus_ang: np.ndarray) -> Particles:
    table = np.zeros(len(defocus_ang), dtype=dtype_of(Particles.block_columns))
    table["pid"] = table["slice"] = np.arange(len(table))
    table["defocus_u_ang"], table["defocus_v_ang"] = defocus_ang + 50, defocus_ang - 50
    return Particles(
        stack="session:stack.mrcs",
        count=len(table),
        box_px=32,
        bin=1.0,
        inverted=True,
        phase_flipped=False,
        micrograph="session:m.mrc",
        block=to_block(table),
    )


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.7, 1.0])
def test_cutting_to_the_level_leaves_the_wanted_fraction(fraction: float) -> None:
    level = water_level(COUNTS.astype(np.float64), fraction)
    assert np.minimum(COUNTS, level).sum() == pytest.approx(fraction * COUNTS.sum())


def test_common_defocus_is_thinned_and_rare_defocus_is_kept_whole() -> None:
    shares = kept_shares(DISTRIBUTION, middle_ang(np.arange(6)), 0.3)
    kept = shares * COUNTS
    level = kept.max()
    assert np.allclose(kept[[1, 2, 3]], [level, level, min(150, level)])
    assert shares[[0, 5]].tolist() == [1, 1]
    assert kept.sum() == pytest.approx(0.3 * COUNTS.sum())
    assert kept_shares(DISTRIBUTION, middle_ang(np.array([-3, 4, 40])), 0.3).tolist() == [1, 1, 1]  # never seen


def test_particles_are_drawn_alike_in_every_run(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    numbers = np.repeat(np.arange(6), COUNTS)
    particles = particles_at(middle_ang(numbers))
    some = balance_defocus(particles, DISTRIBUTION, DefocusSampleParams(fraction=0.3), bench)
    assert some.stack == particles.stack
    pids = particles_table(some)["pid"]
    found = np.bincount(numbers[pids], minlength=6)
    expected = kept_shares(DISTRIBUTION, middle_ang(np.arange(6)), 0.3) * COUNTS
    assert (np.abs(found - expected) <= 4 * np.sqrt(expected) + 1e-9).all()
    assert sorted([*pids, *removed_particles_table(some)["pid"]]) == list(range(len(numbers)))
    assert balance_defocus(particles, DISTRIBUTION, DefocusSampleParams(fraction=0.3), bench) == some
    larger = balance_defocus(particles, DISTRIBUTION, DefocusSampleParams(fraction=0.5), bench)
    assert set(pids) < set(particles_table(larger)["pid"])
    other = balance_defocus(particles, DISTRIBUTION, DefocusSampleParams(fraction=0.3, seed=1), bench)
    assert set(particles_table(other)["pid"]) != set(pids)
    bench.exposure = Exposure("f" * 32, "another")
    assert set(particles_table(balance_defocus(particles, DISTRIBUTION, DefocusSampleParams(fraction=0.3), bench))["pid"]) != set(
        pids
    )


def test_exposures_are_kept_or_rejected_by_their_defocus(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    kept = 0
    for i in range(400):
        bench.exposure = Exposure(f"{i:032x}", f"e{i}")
        verdict = sample_by_defocus(fit(float(middle_ang(2))), DISTRIBUTION, DefocusSampleParams(fraction=0.3), bench)
        kept += verdict.accepted
        assert verdict.accepted or "of this defocus" in (verdict.reason or "")
    (share,) = kept_shares(DISTRIBUTION, np.array([middle_ang(2)]), 0.3)
    assert kept == pytest.approx(400 * share, abs=4 * np.sqrt(400 * share))


def test_the_distribution_counts_particles_or_exposures(tmp_path: Path) -> None:
    bench, step, params = StepBench(tmp_path), DefocusDistributions(), DefocusDistributionParams(bin_um=0.1)
    state = step.start(params, bench)
    exposures = [Exposure(f"{i:032x}", f"e{i}") for i in range(3)]
    fits = [fit(10500), fit(12500), fit(12600)]
    some = [particles_at(np.array([10500.0, 11500.0])), None, particles_at(np.array([15500.0]))]
    state = step.add(state, exposures, some, fits, params, bench).state
    state = DefocusState.restore(state.model_dump_json(), version=1, block=None)
    assert step.emit(state, params, bench) == DefocusDistribution(first_range=10, bin_um=0.1, counts=[1, 1, 1, 0, 0, 1])
    state = step.add(state, exposures[:1], [None], fits[2:], params, bench).state
    assert step.emit(state, params, bench).counts == [1, 1, 2, 0, 0, 1]
    assert step.emit(DefocusState(), params, bench).counts == []


def test_distributions_come_at_the_first_number_and_at_doublings() -> None:
    step, params = DefocusDistributions(), DefocusDistributionParams(first_count=100)

    def asks(waiting: int, passed: int, *, closed: bool = False) -> bool:
        return step.when(
            Progress(waiting=1, waiting_weight=waiting, passed=1, passed_weight=passed, stream_closed=closed), params
        ).accepted

    assert [asks(99, 0), asks(100, 0), asks(299, 300), asks(300, 300), asks(5, 300, closed=True)] == [
        False,
        True,
        False,
        True,
        True,
    ]


def test_an_exposure_without_particles_goes_through(tmp_path: Path) -> None:
    none = balance_defocus(particles_at(np.zeros(0)), DISTRIBUTION, DefocusSampleParams(fraction=0.3), StepBench(tmp_path))
    assert (none.count, none.n_removed) == (0, 0)


def test_particles_without_a_ctf_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ItemError, match="have no CTF"):
        balance_defocus(particles_at(np.array([np.nan])), DISTRIBUTION, DefocusSampleParams(fraction=0.3), StepBench(tmp_path))
