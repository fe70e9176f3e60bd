"""What does un-bending local motion do to the CTF of a micrograph? One JSON line.

Movies of the simulated microscope whose specimen bends (4 Å rms), through the steps `motion`, `movie_spectra`, `ctf` and
`ctf_equiphase`. Two questions. How far is the fitted CTF from that of the microscope, which people look at? And how far is it
from the CTF that particles have at their place in the dose-weighted micrograph? There, un-bending stretches the image of each
frame, rings and all, by its own strain ``E``, so its CTF at frequency ``k`` is that of the microscope at ``(1 + E)^-T k``; the
sum has the mean of these, weighted as each frame counts at that frequency. The phase of that mean, less the phase of the
fitted CTF, is the error that particles are corrected with. `geometry` is the same for the CTF of the microscope itself: what even
a perfect fit leaves.

Ways: `local`, the steps as they are; `global`, without local motion; `mean`, as if the dose-weighted sum too counted local motion
from the mean of all frames alike; `frame_0`, counted from frame 0 as `motion` did before version 6.

python benchmarks/ctf_local_motion.py --count 8
python benchmarks/ctf_local_motion.py --count 4 --relion     # the same for RELION's own motion correction
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from ctf_accuracy import errors, fit_first, summarise
from icestream.algorithms.ctf.transfer import ctf_phase, defocus_along
from icestream.algorithms.motion.dose import critical_exposure_e_per_ang2
from icestream.algorithms.motion.model import local_shift_px, mean_time_terms
from icestream.io.movie import open_movie
from icestream.microscope.pace import Pace
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import simulate
from icestream.microscope.truth import load_exposure_truth
from icestream.records import Acquisition, GainReference, Movie
from icestream.steps.ctf.equiphase import CtfEquiphaseParams, estimate_ctf_equiphase
from icestream.steps.ctf.estimate import CtfParams, estimate_ctf
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.steps.motion.movie_spectra import MovieSpectraParams, average_movie_spectra
from icestream.testing.context import StepBench
from relion_peer import relion_version, run_relion

MICROSCOPE = ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg")
ACQUISITION = ("voltage_kv", "cs_mm", "amplitude_contrast", "pixel_size_ang", "dose_per_frame_e_per_ang2")
FIGURES = ("defocus_ang", "astigmatism_ang", "score", "phase_deg", "phase_at_0.9_deg", "geometry_deg", "geometry_at_0.9_deg")
PLACES, DIRECTIONS = 7, 12
FROM_FRAME_0 = (
    "icestream.algorithms.motion.sum.reference_terms",
    "icestream.algorithms.motion.sum.mean_time_terms",
    "icestream.steps.motion.correction.reference_terms",
)
SHARES = (np.arange(18) + 1) * 0.05
"""Frequencies in parts of Nyquist, up to 0.9."""


def draw_settings(rng, *, side, local_ang, flowing):
    pixel = 1.5
    n_frames = int(rng.integers(16, 41))
    return SimulationSettings(
        n_movies=1,
        seed=int(rng.integers(2**31)),
        height_px=side,
        width_px=side,
        format="mrc",
        pixel_size_ang=pixel,
        n_frames=n_frames,
        dose_per_frame_e_per_ang2=40.0 / n_frames,
        local_motion_px=local_ang / pixel,
        ice_motion_ang2_per_e=1.1 if flowing else 0.0,
    )


class Bench:
    """One movie on disk, its truth, and the steps that work on it."""

    def __init__(self, folder, settings):
        session = simulate(folder, settings=settings, pace=Pace())
        self.folder, self.settings = folder, settings
        self.truth = load_exposure_truth(folder, session.exposures[0])
        self.acquisition = Acquisition(**{name: getattr(settings, name) for name in ACQUISITION})
        self.context = StepBench(folder)
        shape = {"height_px": settings.height_px, "width_px": settings.width_px}
        size = (folder / self.truth.file).stat().st_size
        self.movie = Movie(file=f"session:{self.truth.file}", n_frames=settings.n_frames, format="mrc", size_bytes=size, **shape)
        self.gain = GainReference(file="session:gain.mrc", **shape)

    def correct(self, **params):
        """Return the micrograph, and the CPU seconds that it took."""
        began = time.process_time()
        micrograph = correct_motion(self.movie, self.gain, MotionParams(**params), self.acquisition, self.context)
        return micrograph, time.process_time() - began

    def fits(self, micrograph):
        """Return the CTF of a micrograph in each way."""
        spectra = average_movie_spectra(self.movie, micrograph, MovieSpectraParams(), self.acquisition, self.context)
        one = (micrograph, CtfParams(), self.acquisition, self.context)
        return {
            "ctf": estimate_ctf(*one),
            "ctf_equiphase": estimate_ctf_equiphase(micrograph, CtfEquiphaseParams(), self.acquisition, self.context),
            "movie_spectra": estimate_ctf(*one, spectra=spectra),
        }

    def judge(self, fit, strain):
        """Errors of a CTF as that of the microscope, and as that of particles where un-bending stretched by ``strain``."""
        shape = [getattr(fit, name) for name in MICROSCOPE]
        known = {name: getattr(self.truth, name) for name in MICROSCOPE}
        row = errors(known, *shape) | {"score": fit.score}
        for name, ctf in (("phase", dict(zip(MICROSCOPE, shape, strict=True))), ("geometry", known)):
            error = self.phase_errors_deg(ctf, strain)  # (shares,)
            row[f"{name}_deg"] = float(np.sqrt(np.sum(SHARES * error**2) / np.sum(SHARES)))
            row[f"{name}_at_0.9_deg"] = float(error[-1])
        return row

    def phase_errors_deg(self, ctf, strain):
        """Return the rms over places and directions of the error of the phase of a CTF, at each of `SHARES` of Nyquist."""
        settings = self.settings
        theta = np.pi * np.arange(DIRECTIONS) / DIRECTIONS
        inverse = np.linalg.inv(np.eye(2) + strain)  # (n, places, 2, 2), yx
        along = np.stack([np.sin(theta), np.cos(theta)])  # (2, directions)
        found = []
        for share in SHARES:
            k = share * 0.5 / settings.pixel_size_ang * along  # (2, directions)
            exposure = settings.dose_per_frame_e_per_ang2 * (np.arange(settings.n_frames) + 0.5)
            critical = critical_exposure_e_per_ang2(np.hypot(*k[:, 0]), voltage_kv=settings.voltage_kv)
            weight = np.exp(-exposure / critical)  # of the damage and of the weighting against it
            turned = np.einsum("tpba,bd->tpad", inverse, k)  # (n, places, 2, directions)
            true = {name: getattr(self.truth, name) for name in MICROSCOPE}
            ahead = self._chi(true, turned) - self._chi(ctf, k[None, None])
            mean = np.einsum("t,tpd->pd", weight, np.exp(1j * ahead))
            found.append(np.rad2deg(np.sqrt(np.mean(np.angle(mean) ** 2))))
        return np.array(found)

    def _chi(self, ctf, k):
        ky, kx = k[..., 0, :], k[..., 1, :]
        names = ("voltage_kv", "cs_mm", "amplitude_contrast")
        defocus = defocus_along(np.arctan2(ky, kx), **{name: ctf[name] for name in MICROSCOPE[:3]})
        optics = {name: getattr(self.settings, name) for name in names}
        return ctf_phase(ky * ky + kx * kx, defocus, phase_shift_deg=ctf["phase_shift_deg"], **optics)


def places(side):
    return tuple(grid.ravel() for grid in np.meshgrid(*[(np.arange(PLACES) + 0.5) / PLACES * side] * 2, indexing="ij"))


def strain_of(displacement, *, side):
    """Return the derivatives of a displacement ``(y, x) -> (n, 2, places)``: ``(n, places, 2, 2)``, by what and along what."""
    y, x = places(side)
    step = 4.0
    along_y = (displacement(y + step, x) - displacement(y - step, x)) / (2 * step)
    along_x = (displacement(y, x + step) - displacement(y, x - step)) / (2 * step)
    return np.moveaxis(np.stack([along_y, along_x], axis=-1), 1, 2)  # (n, places, 2, 2)


def our_strain(motion, *, side, since=None):
    """Return by how much un-bending stretched each frame of ours; from other time terms than on record where they are given."""
    n = len(motion.global_yx_px)
    if motion.local_coefficients is None:
        return np.zeros((n, PLACES**2, 2, 2))
    local = np.array(motion.local_coefficients)
    since = np.array(motion.local_reference) if since is None else since

    def displacement(y, x):
        place = {"frame": np.arange(n)[:, None], "y_px": y[None], "x_px": x[None], "since": since}
        return np.moveaxis(local_shift_px(local, **place, shape=(side, side), n_frames=n), 0, 1)

    return strain_of(displacement, side=side)


def measure(folder, settings, *, relion):
    bench, side = Bench(folder, settings), settings.height_px
    rows = {}
    for name, params in (("local", {}), ("global", {"local": False}), ("frame_0", {})):
        with ExitStack() as stack:
            for place in FROM_FRAME_0 if name == "frame_0" else ():
                stack.enter_context(mock.patch(place, lambda *_, **__: np.zeros(3)))
            micrograph, cpu_s = bench.correct(**params)
        strain = our_strain(micrograph.motion, side=side)
        for way, fit in bench.fits(micrograph).items():
            rows[f"{name}.{way}"] = bench.judge(fit, strain) | {"cpu_s": cpu_s}
            if name == "local":
                uniform = our_strain(micrograph.motion, side=side, since=mean_time_terms(np.ones(settings.n_frames)))
                rows[f"mean.{way}"] = bench.judge(fit, uniform) | {"cpu_s": cpu_s}
    if relion:
        with open_movie(folder / bench.truth.file) as reader:
            frames = np.stack(list(reader.frames(0, settings.n_frames)))
        found = run_relion(frames, dose_e_per_px=settings.dose_per_frame_e_per_ang2, patches=3, unweighted=True)
        options = {name: getattr(settings, name) for name in ("voltage_kv", "cs_mm", "amplitude_contrast")}
        fit = fit_first(found.unweighted, settings.pixel_size_ang, options)
        numbers = np.arange(settings.n_frames)
        strain = strain_of(lambda y, x: found.displacement(numbers, y, x, shape=(side, side)), side=side)
        rows["relion.ctf"] = bench.judge(fit, strain) | {"cpu_s": found.cpu_s}
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--motion-ang", type=float, default=4.0, help="rms of the local motion at the last frame, in Å")
    parser.add_argument("--flowing", action="store_true", help="with ice whose molecules wander under the beam")
    parser.add_argument("--relion", action="store_true", help="run RELION's own implementation on the same movies")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    drawn = {key: value for key, value in vars(options).items() if key not in ("verbose", "relion")}
    report = {"benchmark": "ctf_local_motion", **drawn}
    if options.relion:
        report["relion_version"] = relion_version()
    rng = np.random.default_rng(options.seed)
    rows: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.count):
        settings = draw_settings(rng, side=options.side, local_ang=options.motion_ang, flowing=options.flowing)
        with tempfile.TemporaryDirectory() as folder:
            for name, row in measure(Path(folder), settings, relion=options.relion).items():
                rows.setdefault(name, []).append(row)
        if options.verbose:
            print({name: {key: value and round(value, 1) for key, value in each[-1].items()} for name, each in rows.items()},
                  file=sys.stderr, flush=True)  # fmt: skip
    for name, each in rows.items():
        way, how = name.split(".")
        report.setdefault(way, {})[how] = summarise(each, (*FIGURES, "cpu_s"))
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
