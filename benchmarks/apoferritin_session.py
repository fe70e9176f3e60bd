"""A whole session on real data: python benchmarks/apoferritin_session.py <empiar10146_apoferritin> <new folder> [<picture>].

Eight frame averages of EMPIAR-10146 are copied one by one into a watched folder while `icestream run` processes them from import
to 2D classes and the RELION project. Prints one JSON line: F1 of the picks against the manual picks (within 0.3 diameters; half a
diameter of border is not counted) and their distance from those, the defocus beside the one in the data's own description, and
how long it took. The picture shows manual picks (green) and picks (red) on the first micrograph.
"""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from icestream.flow.storage.session import open_session
from icestream.io.blocks import from_block
from icestream.io.preview import write_rgb
from icestream.observe.queries import open_view
from picking_f1 import DIAMETER_ANG, PIXEL_SIZE_ANG, count, load, offsets_ang
from picking_simulated import draw_picks

SECONDS_PER_MICROGRAPH = 3.0
NEW = (
    "--voltage 300 --cs 0.01 --amplitude-contrast 0.07 --pixel-size 1.5 --diameter 100 135 "
    "--set micrographs.max_files=8 --set micrographs.stable_s=2 --set classes.n_classes=8"
)


def icestream(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "icestream", *map(str, arguments)], check=True, stdout=sys.stderr)


def copy_slowly(averages: list[Path], watched: Path) -> None:
    for path in averages:
        time.sleep(SECONDS_PER_MICROGRAPH)
        shutil.copy(path, watched)


def expected_defocus_um(readme: Path) -> dict[str, float]:
    """Mean defocus by time stamp, from the list in the description of the data."""
    found = re.findall(r"(\d\d\.\d\d\.\d\d) (\d\.\d+)/(\d\.\d+)", readme.read_text())
    return {stamp: (float(u) + float(v)) / 2 for stamp, u, v in found}


def main(data: Path, folder: Path, drawn: Path | None) -> None:
    averages = sorted((data / "averages").glob("*.png"))
    watched, session = folder / "watched", folder / "session"
    watched.mkdir(parents=True)
    icestream("new", session, "--micrographs", watched, *NEW.split())
    writer = threading.Thread(target=copy_slowly, args=(averages, watched))
    began_s = time.monotonic()
    writer.start()
    icestream("run", session, "--quiet")
    writer.join()
    seconds = time.monotonic() - began_s
    expected = expected_defocus_um(data / "README.md")
    hits, false, missed, defocus, offsets = 0, 0, 0, {}, []
    with open_view(open_session(session)) as view:
        names = {stored.unit: stored.name for stored in view.records("ctf")}
        for stored in view.records("ctf"):
            stamp = stored.name.removeprefix("May08_").removesuffix(".bin_avg")
            mean_um = (stored.record["defocus_u_ang"] + stored.record["defocus_v_ang"]) / 2e4
            defocus[stamp] = {"um": round(mean_um, 3), "described_um": round(expected[stamp], 3)}
        for stored in view.records("picks"):
            image, truth = load(data / "averages" / f"{names[stored.unit]}.png")
            table = from_block(stored.block or b"")
            picked = np.stack([table["y_px"], table["x_px"]], axis=1)  # (n, 2)
            found = count(picked, truth, image.shape, DIAMETER_ANG / PIXEL_SIZE_ANG)
            offsets.append(offsets_ang(picked, truth))
            if drawn is not None and len(offsets) == 1:
                write_rgb(drawn, draw_picks(image[:1024], picked[picked[:, 0] < 1024], truth[truth[:, 0] < 1024]))
            hits, false, missed = hits + found[0], false + found[1], missed + found[2]
        newest = view.snapshots("classes", limit=1)[0]
        picture = newest.record["picture"].removeprefix("session:")
        particles = newest.record["count"]
    worst_um = max(abs(values["um"] - values["described_um"]) for values in defocus.values())
    line = {
        "benchmark": "apoferritin_session",
        "f1": round(2 * hits / (2 * hits + false + missed), 4),
        "precision": round(hits / (hits + false), 4),
        "recall": round(hits / (hits + missed), 4),
        "offset_ang": round(float(np.median(np.concatenate(offsets))), 2),
        "defocus": defocus,
        "defocus_largest_difference_um": round(worst_um, 3),
        "particles_classified": particles,
        "seconds": round(seconds, 1),
        "classes": picture,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
