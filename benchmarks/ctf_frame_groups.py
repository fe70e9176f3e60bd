"""Is the CTF better fitted to a micrograph, or to power spectra averaged over groups of its movie's frames? One JSON line.

Movies of the simulated microscope, written to files and taken through the steps `motion`, `movie_spectra` and `ctf`: with
ice that keeps its pattern, with ice whose molecules wander under the beam as measured (1.1 Å² for each e/Å²), and with drift
that is not corrected at all. There is no local motion here; `ctf_local_motion.py` is about that.

python benchmarks/ctf_frame_groups.py --count 6
python benchmarks/ctf_frame_groups.py --count 6 --dose 2 4 8     # other doses of a group
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ctf_accuracy import errors, summarise
from ctf_micrographs import MICROSCOPES
from icestream.microscope.pace import Pace
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import simulate
from icestream.microscope.truth import load_exposure_truth
from icestream.records import Acquisition, GainReference, Movie
from icestream.steps.ctf.estimate import CtfParams, estimate_ctf
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.steps.motion.movie_spectra import MovieSpectraParams, average_movie_spectra
from icestream.testing.context import StepBench

FLOWING = {"ice_motion_ang2_per_e": 1.1}
CASES = {
    "still_ice": ({}, True),
    "flowing_ice": (FLOWING, True),
    "drift_left": ({**FLOWING, "drift_px": (10.0, 20.0)}, False),
}
"""What is simulated, and whether motion is corrected."""
CTF = CtfParams(resolution_ang=(30.0, 3.2))  # beyond the strongest ring of ice, so that the limit of the fit can show
NAMES = ("defocus_ang", "astigmatism_ang", "score", "resolution_ang", "spectra_cpu_s")
TRUE = ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg")
WHOLE = 1e6


def draw_movie(rng, index, *, side):
    voltage_kv, cs_mm = MICROSCOPES[index % 3]
    defocus, astigmatism = float(rng.uniform(0.6, 2.5)), float(rng.uniform(0.0, 600.0))
    return {
        "n_movies": 1,
        "seed": int(rng.integers(2**31)),
        "height_px": side,
        "width_px": side,
        "format": "mrc",
        "pixel_size_ang": float(rng.uniform(0.8, 1.4)),
        "voltage_kv": voltage_kv,
        "cs_mm": cs_mm,
        "defocus_um": (defocus, defocus),
        "astigmatism_ang": (astigmatism, astigmatism),
        "b_factor_ang2": float(rng.uniform(40.0, 100.0)),
        "ice_thickness_ang": float(rng.uniform(200.0, 500.0)),
        "phantom_diameter_ang": 120.0,
        "n_particles": 40,
        "local_motion_px": 0.0,
        "n_frames": int(rng.integers(24, 51)),
        "dose_per_frame_e_per_ang2": float(rng.uniform(0.7, 1.4)),
    }


def fit_both(folder, values, *, aligned, doses):
    """The truth of a movie, and how the CTF of it is fitted in each way."""
    settings = SimulationSettings(**values)
    session = simulate(folder, settings=settings, pace=Pace())
    truth = load_exposure_truth(folder, session.exposures[0])
    names = ("voltage_kv", "cs_mm", "amplitude_contrast", "pixel_size_ang", "dose_per_frame_e_per_ang2")
    acquisition, bench = Acquisition(**{name: getattr(settings, name) for name in names}), StepBench(folder)
    shape = {"height_px": settings.height_px, "width_px": settings.width_px}
    size = (folder / truth.file).stat().st_size
    movie = Movie(file=f"session:{truth.file}", n_frames=settings.n_frames, format="mrc", size_bytes=size, **shape)
    gain = GainReference(file="session:gain.mrc", **shape)
    micrograph = correct_motion(movie, gain, MotionParams(), acquisition, bench)
    if not aligned:  # as if nothing had moved
        still = micrograph.motion.model_copy(update={"global_yx_px": [(0.0, 0.0)] * settings.n_frames})
        micrograph = micrograph.model_copy(update={"motion": still})
    fits, seconds = {}, {}
    for dose in (None, *doses):
        name = "micrograph" if dose is None else f"groups_of_{dose:g}_e"
        start = time.process_time()
        params = MovieSpectraParams(group_e_per_ang2=WHOLE if dose is None else dose)
        spectra = average_movie_spectra(movie, micrograph, params, acquisition, bench)
        seconds[name] = time.process_time() - start
        own = aligned and dose is None
        fits[name] = estimate_ctf(micrograph, CTF, acquisition, bench, spectra=None if own else spectra)
    return truth, fits, seconds


def measure(rng, name, *, count, side, doses):
    changes, aligned = CASES[name]
    rows: dict[str, list[Any]] = {}
    for index in range(count):
        with tempfile.TemporaryDirectory() as folder:
            values = draw_movie(rng, index, side=side) | changes
            truth, fits, seconds = fit_both(Path(folder), values, aligned=aligned, doses=doses)
        known = {key: getattr(truth, key) for key in TRUE}
        for how, fit in fits.items():
            row = errors(known, fit.defocus_u_ang, fit.defocus_v_ang, fit.astigmatism_angle_deg, fit.phase_shift_deg)
            row |= {"score": fit.score, "resolution_ang": fit.resolution_ang, "spectra_cpu_s": seconds[how]}
            rows.setdefault(how, []).append(row)
    return {how: summarise(each, NAMES) for how, each in rows.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dose", type=float, nargs="+", default=[4.0], help="of a group, in e/Å²")
    parser.add_argument("--case", choices=list(CASES), nargs="+", default=list(CASES))
    options = parser.parse_args()
    report = {"benchmark": "ctf_frame_groups", **vars(options)}
    for name in options.case:
        rng = np.random.default_rng(options.seed)
        report[name] = measure(rng, name, count=options.count, side=options.side, doses=options.dose)
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
