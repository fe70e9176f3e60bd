"""How well could the CTF be known at best? The Cramér-Rao bound of the synthetic set of ctf_accuracy.py; one JSON line.

The power of each frequency is an exponential variable about a mean that the truth gives (Whittle 1953, Ark. Mat. 2, 423). Its
Fisher information on defocus and astigmatism, less what is lost because a smooth background and envelope are not known, bounds
the error of any estimator that has no bias.

python benchmarks/ctf_bound.py --count 32 --seed 1
"""

import argparse
import json
import sys

import numpy as np

from ctf_micrographs import draw_settings, draw_spectrum
from icestream.algorithms.ctf.samples import Optics, smooth_basis
from icestream.algorithms.ctf.transfer import ctf_2d, defocus_along


def bound_errors(settings, powers, *, side, resolution_ang):
    """Smallest standard deviations of mean defocus and astigmatism, Å; powers: rings, noise, squared frequency."""
    rings, noise, g2 = powers
    pixel = settings["pixel_size_ang"]
    ky, kx = np.fft.fftfreq(side, pixel)[:, None], np.fft.rfftfreq(side, pixel)[None, :]
    low, high = 1 / resolution_ang[0], min(1 / resolution_ang[1], 0.475 / pixel)
    keep = (g2 >= low**2) & (g2 <= high**2) & (kx > 0)
    angle, g2, rings, noise = np.broadcast_to(np.arctan2(ky, kx), keep.shape)[keep], g2[keep], rings[keep], noise[keep]
    optics = Optics.of(**{name: settings[name] for name in ("voltage_kv", "cs_mm", "amplitude_contrast")})
    names = ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg")
    along = defocus_along(angle, **{name: settings[name] for name in names})
    chi = optics.defocus_rate * g2 * along - optics.sphere_rate * g2**2 + optics.contrast_rad
    mean = rings * np.sin(chi + np.deg2rad(settings["phase_shift_deg"])) ** 2 + noise
    slope = rings * np.sin(2 * (chi + np.deg2rad(settings["phase_shift_deg"]))) / mean * optics.defocus_rate * g2
    place = np.rint(np.sqrt(g2) * side * pixel).astype(int)
    per_ang = np.arange(place.min(), place.max() + 1) / (side * pixel)
    unknown = [smooth_basis(per_ang, count=count)[:, place - place.min()] / mean for count in (8, 6)]  # as `ctf` assumes
    turn = 2 * (angle - np.deg2rad(settings["astigmatism_angle_deg"]))
    rows = np.concatenate(
        [slope * [np.ones_like(turn), 0.5 * np.cos(turn), 0.5 * np.sin(turn)], unknown[0], unknown[1] * np.cos(2 * chi)]
    )
    scale = np.sqrt(np.sum(rows**2, axis=1, keepdims=True))
    inverse = np.linalg.pinv((rows / scale) @ (rows / scale).T, rcond=1e-12, hermitian=True) / (scale * scale.T)
    return np.sqrt(np.diag(inverse)[:2])


def expected_powers(rng, settings, *, side, snr):
    """What `simulate_micrograph` draws its image from: power of rings and noise, and squared frequency."""
    rng.standard_normal((2, side, side), dtype=np.float32)  # what the image itself takes from the generator
    g2, envelope, noise = draw_spectrum(rng, settings, side=side)
    twice = np.r_[1.0, np.full(side // 2 - 1, 2.0), 1.0]  # frequencies of a half spectrum stand for two
    variance, of_noise = (np.sum(each * twice) / side**2 for each in ((envelope * ctf_2d(side, side, **settings)) ** 2, noise))
    return snr * envelope**2 / variance, noise / of_noise, g2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    drawn = [draw_settings(rng, index, phase=False) for index in range(options.count)]
    powers = [expected_powers(rng, settings, side=options.side, snr=options.snr) for settings in drawn]
    report = {"benchmark": "ctf_bound", **vars(options)}
    for name, resolution_ang in (("to_4_ang", (30.0, 4.0)), ("to_3_ang", (30.0, 3.0))):
        pairs = zip(drawn, powers, strict=True)
        sigma = np.array([bound_errors(s, p, side=options.side, resolution_ang=resolution_ang) for s, p in pairs])
        chance = np.abs(np.random.default_rng(0).standard_normal((2000, *sigma.shape)) * sigma)  # errors of 2000 such sets
        report[name] = {
            key: {"median": round(float(np.median(each)), 1), "p95": round(float(np.percentile(each, 95)), 1)}
            for key, each in zip(("defocus_ang", "astigmatism_ang"), np.moveaxis(chance, -1, 0), strict=True)
        }
        report[name]["astigmatism_ang"]["spread_of_median"] = round(float(np.std(np.median(chance[..., 1], axis=1))), 1)
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
