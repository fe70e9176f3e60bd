"""How well are local defocus, tilt, thickness and rings of ice measured, and does a level micrograph stay level? One JSON line.

Micrographs of the simulated microscope: tilted ones (0 to 40 degrees, some bent, ice from thin to thick, drawn in slices), and
as many level ones. The error of the local defocus is that at 81 points of the field; "single" is that of one defocus for all.

python benchmarks/ctf_local.py --count 24 --level 24
python benchmarks/ctf_local.py --plot docs/how-to                       # the pictures of the documentation
python benchmarks/ctf_local.py --count 0 --level 0 --apoferritin empiar10146_apoferritin  # what it says of real images
"""

import argparse
import json
import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np

from ctf_micrographs import MICROSCOPES, expose_specimen
from icestream.algorithms.ctf.fit import fit_ctf
from icestream.algorithms.ctf.local_picture import draw_local_defocus
from icestream.algorithms.ctf.local_properties import examine_ctf
from icestream.algorithms.ctf.surface import MODEL_NAMES, field_points
from icestream.algorithms.spectra.spectrum import power_spectra, spectrum_tile_px
from icestream.io.preview import write_rgb

SLICE_ANG = 60.0
FINEST_ANG = 2.5
APOFERRITIN = {"pixel_size_ang": 1.5, "voltage_kv": 300.0, "cs_mm": 0.01, "amplitude_contrast": 0.07}
NAMES = ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg")


def draw_specimen(rng, index, *, level):
    """Settings of one micrograph; every fourth that is not level is bent too."""
    voltage_kv, cs_mm = MICROSCOPES[index % 3]
    defocus, astigmatism = float(rng.uniform(0.6, 2.5)), float(rng.uniform(0.0, 400.0))
    thickness = float(np.exp(rng.uniform(np.log(200.0), np.log(2500.0)))) if index % 2 else float(rng.uniform(200.0, 500.0))
    tilt, bend = float(rng.uniform(0.0, 40.0)), float(rng.uniform(150.0, 500.0))
    return {
        "seed": int(rng.integers(2**31)),
        "pixel_size_ang": float(rng.uniform(0.9, 1.6)),
        "voltage_kv": voltage_kv,
        "cs_mm": cs_mm,
        "defocus_um": (defocus, defocus),
        "astigmatism_ang": (astigmatism, astigmatism),
        "b_factor_ang2": float(rng.uniform(40.0, 120.0)),
        "ice_thickness_ang": thickness,
        "ice_slices": int(np.ceil(thickness / SLICE_ANG)),
        "ice_ring": float(rng.choice([0.0, 0.0, 3.0])),
        "sample_tilt_deg": (0.0, 0.0) if level else (tilt, tilt),
        "bend_ang": (bend, bend) if not level and index % 4 == 3 else (0.0, 0.0),
        "phantom_diameter_ang": 120.0,
        "n_particles": 40,
        "n_frames": 3,
        "dose_per_frame_e_per_ang2": float(rng.uniform(8.0, 16.0)),
    }


def examine(image, optics):
    """Fit one defocus, then what is beyond it; the seconds are those of the latter."""
    pixel = optics["pixel_size_ang"]
    tile_px = spectrum_tile_px(image.shape, pixel_size_ang=pixel, tile_ang=1000.0)
    fit = fit_ctf(power_spectra(image, tile_px=tile_px, n_sets=2), **optics)
    start = time.process_time()
    ctf = {name: getattr(fit, name) for name in NAMES}
    found = examine_ctf(image, **optics, **ctf, tile_ang=800.0, resolution_ang=(30.0, FINEST_ANG), max_tilt_deg=60.0)
    return fit, found, time.process_time() - start


def judge(values, *, side):
    image, truth = expose_specimen(values, side=side)
    optics = {name: getattr(truth, name) for name in ("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast")}
    fit, found, cpu_s = examine(image, optics)
    points = field_points(image.shape)
    single = 0.5 * (fit.defocus_u_ang + fit.defocus_v_ang) - truth.mean_defocus_ang - truth.surface.offset_ang(*points.T)
    local = single + found.local.surface.offset_ang(points)
    tilt, thickness = found.tilt, found.thickness
    turn = None if tilt is None else abs((tilt.axis_deg - truth.tilt_axis_deg + 180.0) % 360.0 - 180.0)
    slope = truth.tilt_deg if tilt is None else abs(tilt.angle_deg - truth.tilt_deg)
    return {
        "tilt_deg": truth.tilt_deg,
        "degree": found.local.surface.degree,
        "tilt_error_deg": slope,
        "tilt_over_stated": None if tilt is None else slope / tilt.angle_error_deg,
        "axis_error_deg": turn if truth.tilt_deg >= 5.0 else None,
        "defocus_rms_ang": float(np.sqrt(np.mean(local**2))),
        "single_rms_ang": float(np.sqrt(np.mean(single**2))),
        "defocus_over_stated": float(np.sqrt(np.mean((local / found.local.surface.error_ang(points)) ** 2))),
        "stated_ang": float(np.mean(found.local.surface.error_ang(points))),
        "thickness_ang": values["ice_thickness_ang"],
        "found_ang": thickness.thickness_ang,
        "found_error_ang": thickness.error_ang,
        "ice": values["ice_ring"] > 0,
        "ice_significance": max((ring.significance for ring in found.ice_rings), default=None),
        "cpu_s": cpu_s,
    }


def spread(values, digits=3):
    kept = np.array([value for value in values if value is not None])
    if not kept.size:
        return None
    return dict(
        zip(("median", "p95", "worst"), (round(float(q), digits) for q in np.percentile(kept, [50, 95, 100])), strict=True)
    )


def summarise(rows):
    """Figures of one kind of micrographs."""
    if not rows:
        return None
    thick = [row for row in rows if row["found_ang"] is not None]
    errors = [abs(row["found_ang"] - row["thickness_ang"]) for row in thick]
    ratios = np.array([row["tilt_over_stated"] for row in rows if row["tilt_over_stated"] is not None])
    models = {name: sum(row["degree"] == degree for row in rows) for degree, name in enumerate(MODEL_NAMES)}
    columns = ("tilt_error_deg", "axis_error_deg", "defocus_rms_ang", "single_rms_ang", "defocus_over_stated", "cpu_s")
    worse = [row["defocus_rms_ang"] - row["single_rms_ang"] for row in rows]
    return {
        "micrographs": len(rows),
        "models": models,
        "constant_fraction": models["constant"] / len(rows),
        **{name: spread([row[name] for row in rows]) for name in columns},
        "tilt_over_stated_rms": round(float(np.sqrt(np.mean(ratios**2))), 3) if ratios.size else None,
        "worse_than_single_by_ang": round(max(worse), 2),
        "worse_than_single": sum(value > 0 for value in worse),
        "thickness": {
            "found": len(thick),
            "error_ang": spread(errors, 1),
            "relative_error": spread([e / row["thickness_ang"] for e, row in zip(errors, thick, strict=True)]),
            "over_stated": spread([e / row["found_error_ang"] for e, row in zip(errors, thick, strict=True)]),
        },
        "ice_significance_with": spread([row["ice_significance"] for row in rows if row["ice"]], 1),
        "ice_significance_without": spread([row["ice_significance"] for row in rows if not row["ice"]], 1),
    }


def examine_real(folder):
    """What is said of the averages of a folder; nothing is known to be true of them."""
    said = {}
    for path in sorted((folder / "averages").glob("*.png")):
        image = np.asarray(imagecodecs.png_decode(path.read_bytes()), np.float32)
        fit, found, _ = examine(image, APOFERRITIN)
        tilt, thickness = found.tilt, found.thickness
        said[path.name.split(".bin")[0]] = {
            "defocus_ang": round(0.5 * (fit.defocus_u_ang + fit.defocus_v_ang)),
            "model": MODEL_NAMES[found.local.surface.degree],
            "gain": {name: round(value, 1) for name, value in found.local.gain.items()},
            "tilt_deg": None if tilt is None else [round(tilt.angle_deg, 2), round(tilt.angle_error_deg, 2)],
            "axis_deg": None if tilt is None else [round(tilt.axis_deg), round(tilt.axis_error_deg)],
            "thickness_ang": thickness.thickness_ang and [round(thickness.thickness_ang), round(thickness.error_ang)],
            "thickness_note": thickness.note,
            "ice": [[round(r.resolution_ang, 2), round(r.excess, 3), round(r.significance, 1)] for r in found.ice_rings],
        }
    return said


SHOWN = {
    "seed": 4,
    "pixel_size_ang": 1.2,
    "defocus_um": (1.5, 1.5),
    "astigmatism_ang": (200.0, 200.0),
    "b_factor_ang2": 60.0,
    "ice_thickness_ang": 1000.0,
    "ice_slices": 17,
    "sample_tilt_deg": (20.0, 20.0),
    "n_particles": 40,
    "phantom_diameter_ang": 120.0,
    "n_frames": 3,
    "dose_per_frame_e_per_ang2": 13.0,
}
WIDTH, HEIGHT, EDGE = 560, 220, 36


def draw_example(folder):
    """Draw what is found of one tilted, thick micrograph: its local defocus, and the rings that reverse at the node."""
    image, truth = expose_specimen(SHOWN, side=1536)
    _, found, _ = examine(image, {name: getattr(truth, name) for name in APOFERRITIN})
    local = found.local
    picture = draw_local_defocus(
        local.surface,
        window_yx_px=found.window_yx_px,
        window_offset_ang=local.window_offset_ang,
        window_error_ang=local.window_error_ang,
        side_px=240,
    )
    write_rgb(folder / "ctf-local.png", picture)
    (folder / "ctf-thickness.svg").write_text(draw_curve(found.amplitudes, found.thickness))


def draw_curve(amplitudes, thickness):
    """Dots are the rings one by one, averaged by fives; the line is the fit, the broken line the node: an SVG."""
    g, n = amplitudes.frequency_per_ang, len(amplitudes.frequency_per_ang) // 5 * 5
    weight = 1.0 / amplitudes.variance[:n].reshape(-1, 5) + 1e-12
    dots = np.sum(amplitudes.in_phase[:n].reshape(-1, 5) * weight, axis=1) / weight.sum(axis=1)
    low, high = -0.1, float(thickness.fitted.max()) * 1.15

    def x(value):
        return EDGE + (WIDTH - 2 * EDGE) * (value - g[0]) / (g[-1] - g[0])

    def y(value):
        return HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (np.clip(value, low, high) - low) / (high - low)

    line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(g, thickness.fitted, strict=True))
    parts = [f'<line x1="{EDGE}" x2="{WIDTH - EDGE}" y1="{y(0):.1f}" y2="{y(0):.1f}" stroke="#888"/>']
    parts += [f'<text x="{x(1 / ang) - 8:.1f}" y="{HEIGHT - 14}">{ang:g} Å</text>' for ang in (20, 8, 5, 4, 3.3, 2.8, 2.5)]
    parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2" fill="#37a"/>' for a, b in zip(g[2:n:5], dots, strict=True)]
    parts.append(f'<polyline points="{line}" fill="none" stroke="#c33" stroke-width="1.5"/>')
    if thickness.node_ang is not None:
        node = x(1 / thickness.node_ang)
        parts.append(
            f'<line x1="{node:.1f}" x2="{node:.1f}" y1="{EDGE}" y2="{HEIGHT - EDGE}" stroke="#333" stroke-dasharray="4"/>'
        )
        label = f"node at {thickness.node_ang:.2f} Å: {thickness.thickness_ang:.0f} ± {thickness.error_ang:.0f} Å thick"
        parts.append(f'<text x="{node + 5:.1f}" y="{EDGE + 10}">{label}</text>')
    parts.append(f'<text x="{EDGE}" y="{EDGE - 12}">Amplitude of the rings; below the line they are reversed</text>')
    body = "\n".join(parts)
    style = 'font-family="sans-serif" font-size="11"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" {style}>\n{body}\n</svg>\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=24, help="micrographs that are tilted or bent")
    parser.add_argument("--level", type=int, default=24, help="micrographs of one defocus")
    parser.add_argument("--side", type=int, default=1536)
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--rows", type=Path, help="write every micrograph's figures here")
    parser.add_argument("--apoferritin", type=Path, help="folder of real images, with a folder `averages`")
    parser.add_argument("--plot", type=Path, help="folder for the pictures of one example, and nothing else")
    options = parser.parse_args()
    if options.plot:
        draw_example(options.plot)
        return
    rows: dict[str, list[object]] = {}
    for kind, count in (("level", options.level), ("tilted", options.count)):
        rng = np.random.default_rng([options.seed, kind == "level"])
        drawn = [draw_specimen(rng, index, level=kind == "level") for index in range(count)]
        rows[kind] = []
        for values in drawn:
            rows[kind].append(judge(values, side=options.side))
            if options.rows:
                options.rows.write_text(json.dumps(rows))
    report = {"benchmark": "ctf_local", **{name: getattr(options, name) for name in ("count", "level", "side", "seed")}}
    report |= {name: figures for name, each in rows.items() if (figures := summarise(each)) is not None}
    if options.apoferritin:
        report["apoferritin"] = examine_real(options.apoferritin)
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
