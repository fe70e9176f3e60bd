"""The default rules of drift: how often they are raised where nothing changes, and how soon after a change.

A simulated quality figure: a skewed distribution, with a part that the exposures of one grid square share. It is judged every
third exposure, as an observer does. Run ``python benchmarks/alarm_drift.py --seeds 1000 1020``. Prints one JSON line.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence

import numpy as np

from icestream.alarms.change import scatter_of
from icestream.alarms.defaults import DEFAULT_RULES
from icestream.alarms.evaluate import evaluate
from icestream.alarms.observations import Measured, Observations, Value
from icestream.alarms.rules import MOST_VALUES, DriftRule
from icestream.alarms.state import AlarmState

N_EXPOSURES, CHANGE_AT, EVERY, SQUARE = 1200, 600, 3, 40
LOWEST, SHAPE, SCALE = 3.0, 4.0, 0.3
SHARED = 0.3
"""Standard deviation of what the exposures of a square share, in units of that of single exposures."""


def simulate(seed: int, shift: float) -> list[float]:
    """Return values in Å; those from `CHANGE_AT` on are larger by ``shift`` times the scatter."""
    rng = np.random.default_rng(seed)
    values = LOWEST + rng.gamma(SHAPE, SCALE, N_EXPOSURES)
    scatter = scatter_of(values.tolist())
    values += np.repeat(rng.normal(0, SHARED * scatter, N_EXPOSURES // SQUARE), SQUARE)
    values[CHANGE_AT:] += shift * scatter
    return [float(value) for value in values]


def raised_at(rule: DriftRule, values: Sequence[float]) -> list[int]:
    """Return after how many exposures the rule raised an alarm."""
    state, found = AlarmState(), []
    listed = tuple(Value(n, float(n), f"e{n}", value) for n, value in enumerate(values))
    for n in range(EVERY, len(values) + 1, EVERY):
        newest = listed[max(0, n - MOST_VALUES) : n]
        seen = Measured("ctf:m", "ctf", "m", "CTF", "Å", rule.measure, "low", False, newest)
        evaluated = evaluate([rule], state, Observations(measured=(seen,)), float(n))
        state = evaluated.state
        found += [n] * len(evaluated.opened)
    return found


def measure(rule: DriftRule, seeds: range) -> dict[str, object]:
    """Return how often the rule is raised without a change, and how soon after one."""
    result: dict[str, object] = {}
    false_alarms = sum(len(raised_at(rule, simulate(seed, 0.0))) for seed in seeds)
    result["false_per_1000"] = round(1000 * false_alarms / (N_EXPOSURES * len(seeds)), 3)
    for shift in (1.0, 2.0, 3.0):
        delays = []
        for seed in seeds:
            after = [n - CHANGE_AT for n in raised_at(rule, simulate(seed, shift)) if n > CHANGE_AT]
            delays += [after[0]] if after and after[0] <= 150 else []
        result[f"found_{shift:g}_scatters"] = round(len(delays) / len(seeds), 3)
        result[f"delay_{shift:g}_scatters"] = statistics.median(delays) if delays else None
    return result


def main() -> None:
    """Measure every default rule of drift, without its least change, which depends on the measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(1000, 1020))
    seeds = range(*parser.parse_args().seeds)
    began = time.process_time()
    rules = {rule.by: rule for rule in reversed(DEFAULT_RULES) if isinstance(rule, DriftRule)}
    found = {by: measure(rule.model_copy(update={"least_change": 0.0}), seeds) for by, rule in rules.items()}
    print(json.dumps({"benchmark": "alarm_drift", "seeds": list(seeds), **found, "cpu_s": round(time.process_time() - began, 1)}))


if __name__ == "__main__":
    main()
