"""How far is each of the three columns of ice to be trusted? Correlation with, and bias from, the true thickness. One JSON line.

Each seed is a session of the simulated microscope: one camera, pixel and mean free path, exposures with ice of 10 to 150 nm drawn
in slices, a beam that fluctuates by 1 % and drifts by 3 % over the session, particles, and every fourth session with an empty
hole. "transmission" compares ``-ln(I / I0)`` with thickness over mean free path, and "nodes" thickness with thickness; the ring
has no unit of thickness, so only its correlation (of ranks, in each session) counts.

python benchmarks/ice_thickness.py --seeds 1000 1001 1002 --count 20
python benchmarks/ice_thickness.py --seeds --apoferritin empiar10146_apoferritin    # the ring on real images
"""

import argparse
import json
import time
from pathlib import Path

import imagecodecs
import numpy as np
from scipy.stats import spearmanr

from ctf_local import examine
from icestream.algorithms.micrograph.transmission import (
    brightest_plausible,
    mean_free_paths,
    mean_intensity_2d,
    vacuum_of_empty,
)
from icestream.algorithms.micrograph.water_ring import measure_water_ring
from icestream.algorithms.spectra.spectrum import power_spectrum, spectrum_tile_px
from icestream.microscope.camera import count_electrons
from icestream.microscope.draw import draw_exposure
from icestream.microscope.exposure import expected_frames, render_specimen
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import open_studio
from icestream.steps.micrographs.ice import TILE_ANG, TOLERANCE

SLICE_ANG = 60.0
SIDE = 1024
FLUCTUATION, DRIFT = 0.01, 0.03
N_FRAMES = 3
THIN, THICK = 100.0, 1500.0
NODES_FROM = 600.0


def draw_session(seed):
    """What all exposures of a session share."""
    rng = np.random.default_rng(seed)
    return rng, SimulationSettings(
        seed=seed,
        height_px=SIDE,
        width_px=SIDE,
        pixel_size_ang=float(rng.uniform(0.8, 1.3)),
        voltage_kv=float(rng.choice([200.0, 300.0])),
        b_factor_ang2=float(rng.uniform(40.0, 100.0)),
        ice_mean_free_path_ang=float(rng.uniform(2000.0, 4500.0)),
        phantom_diameter_ang=120.0,
        n_particles=40,
        n_frames=N_FRAMES,
        dose_per_frame_e_per_ang2=float(rng.uniform(30.0, 50.0)) / N_FRAMES,
        drift_px=(0.0, 0.0),
        local_motion_px=0.0,
        gain=False,
        depth_spread=True,
        defocus_um=(0.6, 2.0),
    )


def expose(session, index, *, thickness_ang, beam):
    """One exposure of a session through ice of one thickness, with a beam that is not quite that of the session."""
    studio = open_studio(session)
    slices = max(int(np.ceil(thickness_ang / SLICE_ANG)), 1)
    settings = session.model_copy(update={"ice_thickness_ang": thickness_ang, "ice_slices": slices})
    truth = draw_exposure(settings, index, fault=None, diameter_ang=studio.phantom.diameter_ang)
    generator = settings.generator(9, index)
    specimen = render_specimen(
        truth,
        studio.volume,
        particle_contrast=settings.particle_contrast,
        ice_thickness_ang=thickness_ang,
        generator=generator,
        ice_slices=slices,
    )
    frames = expected_frames(truth, specimen, dose_per_frame_e_per_ang2=settings.dose_per_frame_e_per_ang2)
    expected = beam * np.sum(list(frames), axis=0)  # (side, side)
    return count_electrons(expected, generator=generator).astype(np.float32), truth


def ring_of(image, pixel_ang):
    tile = spectrum_tile_px(image.shape, pixel_size_ang=pixel_ang, tile_ang=TILE_ANG)
    return measure_water_ring(power_spectrum(image, tile_px=tile), pixel_size_ang=pixel_ang)


def run_session(seed, count, *, nodes):
    rng, session = draw_session(seed)
    rows, intensities, empty = [], [], []
    for index in range(count):
        thickness = float(rng.uniform(THIN, THICK))
        beam = float(1 + FLUCTUATION * rng.standard_normal() + DRIFT * (index / max(count - 1, 1) - 0.5))
        image, truth = expose(session, index, thickness_ang=thickness, beam=beam)
        row = {"thickness_ang": thickness, "found_ang": None, "stated_ang": None}
        row["ring"], row["ring_error"] = ring_of(image, truth.pixel_size_ang)
        if nodes:
            names = ("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast")
            found = examine(image, {name: getattr(truth, name) for name in names})[1].thickness
            row["found_ang"], row["stated_ang"] = found.thickness_ang, found.error_ang
        rows.append(row)
        intensities.append(mean_intensity_2d(image)[0])
    dose = session.dose_per_pixel * session.n_frames
    if seed % 4 == 0:
        empty = [dose * float(1 + FLUCTUATION * rng.standard_normal())]
    bright = brightest_plausible(intensities, tolerance=TOLERANCE)
    vacuum = vacuum_of_empty(empty, brightest=bright) or bright or max(intensities)
    for row, intensity in zip(rows, intensities, strict=True):
        row["paths"] = mean_free_paths(intensity, vacuum=vacuum)
        row["true_paths"] = row["thickness_ang"] / session.ice_mean_free_path_ang
    return rows, {"empty hole": bool(empty), "mean_free_path_ang": session.ice_mean_free_path_ang}


def correlate(x, y, by=np.corrcoef):
    return round(float(by(x, y)[0, 1]), 3) if len(x) > 2 else None


def summarise(sessions):
    transmission, rings, nodes = [], [], []
    for rows, told in sessions:
        paths, true = (np.array([row[name] for row in rows]) for name in ("paths", "true_paths"))
        path_ang = told["mean_free_path_ang"]
        transmission.append(
            {
                "I0": "empty hole" if told["empty hole"] else "brightest",
                "correlation": correlate(paths, true),
                "bias_ang": round(float(np.median(paths - true)) * path_ang, 1),
                "spread_ang": round(float(np.std(paths - true)) * path_ang, 1),
                "slope": round(float(np.polyfit(true, paths, 1)[0]), 3),
            }
        )
        thickness, ring = (np.array([row[name] for row in rows]) for name in ("thickness_ang", "ring"))
        rings.append(
            {
                "correlation_of_ranks": round(float(spearmanr(thickness, ring)[0]), 3),
                "correlation": correlate(thickness, ring),
                "thin": round(float(np.median(ring[thickness < 400])), 3) if (thickness < 400).any() else None,
                "thick": round(float(np.median(ring[thickness > 1000])), 3) if (thickness > 1000).any() else None,
                "stated_error": round(float(np.median([row["ring_error"] for row in rows])), 4),
            }
        )
        nodes += [row for row in rows if row["found_ang"] is not None]
    thick = sum(row["thickness_ang"] > NODES_FROM for rows, _ in sessions for row in rows)
    return {
        "exposures": sum(len(rows) for rows, _ in sessions),
        "transmission": transmission,
        "nodes": {"of_thicker_than_600_ang": thick, **summarise_nodes(nodes)},
        "ring": rings,
    }


def summarise_nodes(rows):
    found, true, stated = (np.array([row[name] for row in rows]) for name in ("found_ang", "thickness_ang", "stated_ang"))
    if not rows:
        return {"reported": 0}
    median, worst = (round(100 * float(q), 2) for q in np.percentile(np.abs(found / true - 1), [50, 100]))
    return {
        "reported": len(rows),
        "thinnest_ang": round(float(true.min())),
        "correlation": correlate(found, true),
        "bias_ang": round(float(np.median(found - true)), 1),
        "error_percent": {"median": median, "worst": worst},
        "over_stated_rms": round(float(np.sqrt(np.mean(((found - true) / stated) ** 2))), 2),
    }


def examine_real(folder):
    """The ring of real images; nothing is known of their ice."""
    said = {}
    for path in sorted((folder / "averages").glob("*.png")):
        image = np.asarray(imagecodecs.png_decode(path.read_bytes()), np.float32)
        strength, error = ring_of(image, 1.5)
        said[path.name.split(".bin")[0]] = [round(strength, 4), round(error, 4)]
    return said


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1000, 1001, 1002])
    parser.add_argument("--count", type=int, default=20, help="exposures of a session")
    parser.add_argument("--no-nodes", action="store_true")
    parser.add_argument("--apoferritin", type=Path, help="folder empiar10146_apoferritin")
    parser.add_argument("--rows", action="store_true")
    args = parser.parse_args()
    start = time.process_time()
    sessions = [run_session(seed, args.count, nodes=not args.no_nodes) for seed in args.seeds]
    told = {"benchmark": "ice_thickness", "seeds": args.seeds}
    if sessions:
        told |= summarise(sessions)
    if args.apoferritin:
        told["apoferritin"] = examine_real(args.apoferritin)
    if args.rows:
        told["rows"] = [rows for rows, _ in sessions]
    print(json.dumps({**told, "cpu_s": round(time.process_time() - start, 1)}))


if __name__ == "__main__":
    main()
