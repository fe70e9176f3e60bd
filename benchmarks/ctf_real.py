"""Both CTF estimators on real micrographs: python benchmarks/ctf_real.py DATA [--pictures FILE.png]; one JSON line.

DATA holds ``empiar10146_apoferritin`` and ``epu_falcon_titan``. Printed for each image: both defocus and astigmatism with their
stated standard errors, how far they are apart in units of the error of the difference, and the published defocus where there is
one. The true values are not known. Cs and amplitude contrast of the Falcon image are not in its file: 2.7 mm and 0.07 are usual.
"""

import argparse
import json
import re
from pathlib import Path

import imagecodecs
import mrcfile
import numpy as np

from ctf_accuracy import fit_first, fit_second
from icestream.algorithms.ctf.picture import draw_ctf_fit
from icestream.algorithms.spectra.spectrum import power_spectra, spectrum_tile_px
from icestream.io.preview import write_preview

APOFERRITIN = {"voltage_kv": 300.0, "cs_mm": 0.01, "amplitude_contrast": 0.07}
FALCON = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.07}
PICTURE_PX = 300
PICTURE_ANG = 8.0


def micrographs(data):
    """Yield name, image, pixel size, optics and published defocus (Å; None where there is none)."""
    folder = data / "empiar10146_apoferritin"
    published = dict(re.findall(r"(\d\d\.\d\d\.\d\d) (\d\.\d+/\d\.\d+)", (folder / "README.md").read_text()))
    for path in sorted((folder / "averages").glob("*.png")):
        values = next((text for stamp, text in published.items() if stamp in path.name), None)
        mean = None if values is None else 1e4 * float(np.mean([float(one) for one in values.split("/")]))
        yield path.name.partition(".bin")[0], imagecodecs.imread(path).astype(np.float32), 1.5, APOFERRITIN, mean
    path = data / "epu_falcon_titan" / "epu2.9_example.mrc"
    yield path.stem, mrcfile.read(path).astype(np.float32), 0.6665513, FALCON, None


def defocus_of(found):
    return (found.defocus_u_ang + found.defocus_v_ang) / 2


def astigmatism_of(found):
    """Astigmatism as a vector: its size at twice its angle."""
    return (found.defocus_u_ang - found.defocus_v_ang) * np.exp(2j * np.radians(found.astigmatism_angle_deg))


def told(found):
    return {
        "defocus_ang": round(defocus_of(found), 1),
        "defocus_error_ang": round(found.defocus_error_ang, 1),
        "astigmatism_ang": round(abs(astigmatism_of(found)), 1),
        "astigmatism_error_ang": round(found.astigmatism_error_ang, 1),
        "score": round(found.score, 2),
        "resolution_ang": round(found.resolution_ang, 1),
    }


def compare(one, other, published):
    defocus = abs(defocus_of(one) - defocus_of(other)) / np.hypot(one.defocus_error_ang, other.defocus_error_ang)
    errors = np.hypot(one.astigmatism_error_ang, other.astigmatism_error_ang)
    line = {"ctf": told(one), "ctf_equiphase": told(other), "defocus_apart_in_errors": round(float(defocus), 2)}
    line["astigmatism_apart_in_errors"] = round(float(abs(astigmatism_of(one) - astigmatism_of(other)) / errors), 2)
    if published is not None:
        line["published_defocus_ang"] = round(published)
    return line


def draw(image, pixel, optics, found):
    tile_px = spectrum_tile_px(image.shape, pixel_size_ang=pixel, tile_ang=1000.0)
    fitted = {
        name: getattr(found, name) for name in ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg")
    }
    spectrum = power_spectra(image, tile_px=tile_px, n_sets=2).mean(axis=0)
    picture = draw_ctf_fit(spectrum, pixel_size_ang=pixel, resolution_ang=PICTURE_ANG, **fitted, **optics)
    rows = np.linspace(0, len(picture) - 1, PICTURE_PX).round().astype(int)
    return picture[np.ix_(rows, rows)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder with the real micrographs")
    parser.add_argument("--pictures", type=Path, help="write the first fit of each image there, side by side")
    given = parser.parse_args()
    lines, pictures = {}, []
    for name, image, pixel, optics, published in micrographs(given.data):
        one, other = fit_first(image, pixel, optics), fit_second(image, pixel, optics)
        lines[name] = compare(one, other, published)
        pictures.append(draw(image, pixel, optics, one))
    if given.pictures is not None:  # the first row of an image is drawn at the bottom
        columns = 3
        pictures += [np.zeros_like(pictures[0])] * (-len(pictures) % columns)
        rows = [np.hstack(pictures[start : start + columns]) for start in range(0, len(pictures), columns)]
        write_preview(given.pictures, np.vstack(rows[::-1]), max_px=columns * PICTURE_PX)
    worst = {key: max(line[key] for line in lines.values()) for key in ("defocus_apart_in_errors", "astigmatism_apart_in_errors")}
    print(json.dumps({"benchmark": "ctf_real", "images": lines, "worst": worst}))


if __name__ == "__main__":
    main()
