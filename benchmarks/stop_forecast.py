"""Is the forecast of the resolution right as often as it says? Sessions simulated as Fourier shells.

Run ``python benchmarks/stop_forecast.py [SESSIONS [FIRST_SEED]]``. Prints one JSON line. Each session has a protein and a
microscope of its own: a signal that falls from a Guinier region over random bumps (six Gaussians in frequency, 0.2 to 0.7 in
the logarithm, not of the form that the fit assumes) with a B factor of 60 to 250 Å², a mask that leaves a third to an eighth of
the box, C1, C2 or C4, and a level that gives 5 to 12 Å now. Coefficients of the shells are drawn for 64 equal parts of the
particles; the correlations of all subsets follow from their sums, so subsets share noise as they do in reality. ``one_curve``
fits the curve of all particles of now alone, as the step does; everything else fits those of its subsets too. The first half of
the parts is now; at the next doubling poses improve by 0 to 8 Å² of B factor. What the fit is told of independent coefficients
is off by up to 20 %. The truth is the resolution of the curve of all parts without chance, and ``measured_in_band`` is about a
single measured curve against the forecast of it. Hours are judged by themselves: rates of accepted particles wander from hour
to hour.
"""

import json
import sys
import time

import numpy as np

from icestream.algorithms.frc import frequency_at_threshold
from icestream.algorithms.stop_forecast.forecast import forecast_particles, forecast_resolution_ang
from icestream.algorithms.stop_forecast.signal import Correlation, fit_signal

PARTS, BOX_PX, FIRST_SHELL = 64, 128, 3
SUBSETS = (1, 2, 4, 8, 16)


def simulate(seed):
    """Return the frequencies, what gives the curves of parts, the particles now, and the coefficients that the fit is told of."""
    rng = np.random.default_rng(seed)
    pixel_ang = rng.uniform(1.2, 2.2)
    shell = np.arange(FIRST_SHELL, BOX_PX // 2)
    frequency = shell / (BOX_PX * pixel_ang)
    b_factor = rng.uniform(60.0, 250.0)
    log_signal = -b_factor / 2 * frequency**2
    log_signal += np.log1p(10 ** rng.uniform(1.5, 3.0) * np.exp(-(frequency**2) * rng.uniform(300, 1500)))
    for _ in range(6):
        centre, width = rng.uniform(0.02, 0.4), rng.uniform(0.01, 0.05)
        log_signal += rng.uniform(0.2, 0.7) * rng.choice([-1, 1]) * np.exp(-0.5 * ((frequency - centre) / width) ** 2)
    now_ang = rng.uniform(5.0, 12.0)
    now = int(10 ** rng.uniform(3.5, 5.0))
    log_signal += np.log(0.143 / 0.857 * 2 / now) - np.interp(1 / now_ang, frequency, log_signal)
    independent = np.maximum(2 * np.pi * shell**2 / rng.uniform(3, 8) / rng.choice([1, 2, 4]), 4).astype(int)
    gain = rng.uniform(0.0, 8.0)

    def curves(subsets, later):
        """Return the correlation of each subset, a list of parts, ``(s, k)``."""
        found = np.empty((len(subsets), len(shell)))
        for k in range(len(shell)):
            own = np.random.default_rng([seed, k])
            n = independent[k]
            signal = own.normal(size=n) * np.sqrt(np.exp(log_signal[k] + (gain / 2 * frequency[k] ** 2 if later else 0.0)))
            noise = own.normal(size=(PARTS, 2, n)) / np.sqrt(now / PARTS)  # each half of a part: now / (PARTS / 2) / 2 particles
            for i, parts in enumerate(subsets):
                half = signal + noise[parts].mean(axis=0)  # (2, n)
                found[i, k] = (half[0] * half[1]).sum() / np.sqrt((half[0] ** 2).sum() * (half[1] ** 2).sum())
        return found

    def expected(n, later):
        ratio = np.exp(log_signal + (gain / 2 * frequency**2 if later else 0.0)) * n / 2
        return ratio / (1 + ratio)

    told = independent * rng.uniform(0.8, 1.2)
    return frequency, curves, expected, now, told


def measure(seed):
    frequency, curves, expected, now, told = simulate(seed)
    rng = np.random.default_rng([seed, 1])
    subsets = [np.arange(PARTS // 2)]
    for part in SUBSETS[1:]:
        dealt = rng.permutation(PARTS // 2).reshape(part, -1)
        subsets += list(dealt[:4])
    found = curves(subsets, False)
    given = [Correlation(int(now * len(s) * 2 / PARTS), curve) for s, curve in zip(subsets, found, strict=True)]
    signal = fit_signal(frequency, given, independent=told, seed=seed)
    one_curve = fit_signal(frequency, given[:1], independent=told, seed=seed)
    later = curves([np.arange(PARTS)], True)[0]
    return {
        "now": resolution(frequency, expected(now, False)),
        "truth": resolution(frequency, expected(2 * now, True)),
        "measured": resolution(frequency, later),
        "band": forecast_resolution_ang(signal, 2.0 * now, seed=seed),
        "band_one_curve": forecast_resolution_ang(one_curve, 2.0 * now, seed=seed),
        "band_now": forecast_resolution_ang(signal, 1.0 * now, seed=seed),
        "band_measured": forecast_resolution_ang(signal, 2.0 * now, with_chance=True, seed=seed),
        "line": line_forecast(frequency, given, 2.0 * now),
    }


def resolution(frequency, curve):
    limit = frequency_at_threshold(np.concatenate([[0.0], frequency]), np.concatenate([[1.0], curve]), threshold=0.143)
    return 1.0 / limit if limit > 0 else np.inf


def line_forecast(frequency, given, n):
    """Return what a straight line of 1/d² over ln N through the crossings of the subsets says (the usual plot)."""
    rows = [(np.log(one.n_particles), resolution(frequency, one.curve)) for one in given]
    rows = [(x, 1 / d**2) for x, d in rows if np.isfinite(d)]
    x, y = np.array(rows).T
    slope, level = np.polyfit(x, y, 1)
    value = slope * np.log(n) + level
    return 1 / np.sqrt(value) if value > 0 else np.inf


def rates(seed):
    """Return whether the particles of three more hours are within the band of eight in ten, and how wide that is."""
    rng = np.random.default_rng([seed, 2])
    hours = np.arange(7, dtype=np.float64)
    rate = rng.uniform(1000, 20000) * np.exp(np.cumsum(rng.normal(size=9)) * rng.uniform(0.05, 0.3))
    counts = np.concatenate([[0], np.cumsum(rng.poisson(rate))])
    drawn = forecast_particles(hours, counts[:7].astype(float), 3.0, n_draws=400, seed=seed)
    low, middle, high = np.quantile(drawn, (0.1, 0.5, 0.9))
    return low <= counts[9] <= high, (high - low) / 2 / middle


def main(count=24, first=1000):
    began = time.process_time()
    rows = [measure(seed) for seed in range(first, first + count)]
    hours = [rates(seed) for seed in range(first, first + 10 * count)]
    inside = [row["band"].low <= row["truth"] <= row["band"].high for row in rows]
    inside_one = [row["band_one_curve"].low <= row["truth"] <= row["band_one_curve"].high for row in rows]
    widths = [row["band"].half_width for row in rows]
    error = [abs(row["band"].middle / row["truth"] - 1) for row in rows]
    line = [abs(row["line"] / row["truth"] - 1) for row in rows]
    print(
        json.dumps(
            {
                "sessions": count,
                "truth_in_band": round(float(np.mean(inside)), 3),
                "truth_in_band_one_curve": round(float(np.mean(inside_one)), 3),
                "half_width_one_curve": round(float(np.median([row["band_one_curve"].half_width for row in rows])), 4),
                "now_in_band": round(float(np.mean([r["band_now"].low <= r["now"] <= r["band_now"].high for r in rows])), 3),
                "measured_in_band": round(
                    float(np.mean([r["band_measured"].low <= r["measured"] <= r["band_measured"].high for r in rows])), 3
                ),
                "half_width": {
                    "median": round(float(np.median(widths)), 4),
                    "worst": round(float(np.max(widths)), 4),
                    "share_above_0.1": round(float(np.mean(np.array(widths) > 0.1)), 3),
                },
                "error": {"median": round(float(np.median(error)), 4), "worst": round(float(np.max(error)), 4)},
                "straight_line_error": {"median": round(float(np.median(line)), 4), "worst": round(float(np.max(line)), 4)},
                "gain_of_doubling": round(float(np.median([1 - row["truth"] / row["now"] for row in rows])), 4),
                "particles_in_band": round(float(np.mean([one[0] for one in hours])), 3),
                "particles_half_width": round(float(np.median([one[1] for one in hours])), 3),
                "cpu_s_a_session": round((time.process_time() - began) / count, 2),
            }
        )
    )


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
