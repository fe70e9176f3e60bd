"""Is the CTF better fitted to a micrograph, or to power spectra averaged over groups of its movie's frames? One JSON line.

Movies of the simulated microscope, written to files and taken through the steps `motion`, `movie_spectra` and `ctf`: with ice that
keeps its pattern, with ice whose molecules wander under the beam as measured (1.1 Å² for each e/Å²), with strong local motion
of which only the part of the whole field is corrected, and with drift that is not corrected at all.

python benchmarks/ctf_frame_groups.py --count 8
python benchmarks/ctf_frame_groups.py --count 8 --dose 2 4 8     # other doses of a group
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ctf_accuracy import errors, summarise
from ctf_micrographs import MICROSCOPES
from icestream.microscope.pace import Pace
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import simulate
from icestream.microscope.truth import load_exposure_truth
from icestream.records import Acquisition, GainReference, Movie
from icestream.steps.ctf import CtfParams, estimate_ctf
from icestream.steps.motion import MotionParams, correct_motion
from icestream.steps.movie_spectra import MovieSpectraParams, average_movie_spectra
from icestream.testing.context import StepBench

FLOWING = {"ice_motion_ang2_per_e": 1.1}
CASES = {
    "still_ice": ({}, True),
    "flowing_ice": (FLOWING, True),
    "local_motion_left": ({**FLOWING, "local_motion_px": 8.0, "drift_px": (10.0, 20.0)}, False),
    "drift_left": ({**FLOWING, "drift_px": (10.0, 20.0)}, None),
}
"""What is simulated, and whether local motion is corrected; None: no motion is."""
NAMES = ("defocus_ang", "astigmatism_ang", "angle_deg", "score", "resolution_ang")


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
        "n_frames": int(rng.integers(24, 51)),
        "dose_per_frame_e_per_ang2": float(rng.uniform(0.7, 1.4)),
    }


def fit_both(folder, values, *, local, doses):
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
    micrograph = correct_motion(movie, gain, MotionParams(local=bool(local)), acquisition, bench)
    if local is None:  # as if nothing had moved
        still = [(0.0, 0.0)] * settings.n_frames
        micrograph = micrograph.model_copy(
            update={"motion": micrograph.motion.model_copy(update={"global_yx_px": still})}
        )
    whole = MovieSpectraParams(group_e_per_ang2=1e6)
    fits, seconds = {}, {}
    for name, params in {"micrograph": whole, **{f"groups_{dose:g}": MovieSpectraParams(group_e_per_ang2=dose) for dose in doses}}.items():
        start = time.process_time()
        spectra = average_movie_spectra(movie, micrograph, params, acquisition, bench)
        seconds[name] = time.process_time() - start
        if name == "micrograph" and local is not None:
            fits[name] = estimate_ctf(micrograph, CtfParams(), acquisition, bench)
        else:
            fits[name] = estimate_ctf(micrograph, CtfParams(), acquisition, bench, spectra=spectra)
    return truth, fits, seconds
