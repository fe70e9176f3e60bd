"""A whole little acquisition on paper: movies, motion, two CTF programs, picks, classes, failures, rejections, pictures."""

from typing import Any

import numpy as np
from paper_session import HOSTILE, T0, PaperSession, new_session, picks_block, write_png

from icestream.records import ClassAverages, ClassInfo, CtfFit, Micrograph, Motion, Movie, Picks

STEPS: dict[str, dict[str, Any]] = {
    "movies": {"use": "import_movies"},
    "align": {"use": "motion", "in": {"movie": "movies"}, "label": f"Align {HOSTILE}"},
    "ctf_a": {"use": "ctf", "in": {"micrograph": "align"}, "label": "CTF (first program)"},
    "ctf_b": {"use": "ctf_other", "in": {"micrograph": "align"}},
    "good": {"use": "ctf_filter", "in": {"ctf": "ctf_a"}},
    "find": {"use": "pick_blob", "in": {"micrograph": "align", "ctf": "good"}},
    "classes": {"use": "classify2d", "in": {"picks": "find"}},
}
HEIGHT, WIDTH = 400, 600


def write_acquisition(folder, n: int = 40, *, name: str = "Ribosome, grid 3", start: float = T0) -> PaperSession:
    """Store ``n`` exposures, one a minute: number 3 fails in motion, every seventh is rejected."""
    session = new_session(folder, STEPS, name=name, acquisition={"pixel_size_ang": 0.8, "cs_mm": 2.7})
    paper = PaperSession(session, start)
    kinds = ("source", "map", "map", "map", "filter", "map", "accumulate")
    for (step, spec), kind in zip(STEPS.items(), kinds, strict=True):
        links = {port: [target] for port, target in spec.get("in", {}).items()}
        paper.revise(step, kind, links=links, params={"note": HOSTILE})
    rng = np.random.default_rng(5)
    for index in range(1, n + 1):
        paper.now += 60.0
        _expose(paper, folder, index, rng)
    _finish(paper, folder, rng)
    return paper


def _expose(paper: PaperSession, folder, index: int, rng) -> None:
    title = f"{HOSTILE} {index:04d}" if index % 5 == 0 else f"FoilHole_2913_{index:04d}"
    unit = paper.expose(title, index)
    movie = Movie(file=f"raw:m{index}.tif", n_frames=40, height_px=HEIGHT, width_px=WIDTH, format="tiff", size_bytes=9)
    movie_key = paper.make("movies", unit, movie, wall_s=0.01)
    if index == 3:
        paper.fail("align", unit, f"frame 7 is broken {HOSTILE}")
        for step in ("ctf_a", "ctf_b", "good", "find", "classes"):
            paper.settle(step, unit, "skipped", weight=0, root="align", reason="frame 7 is broken")
        return
    steps_yx = np.cumsum(rng.normal(size=(40, 2)) * np.exp(-np.arange(40) / 10)[:, None], axis=0)
    path = [(float(y), float(x)) for y, x in steps_yx - steps_yx[0]]
    total = float(np.hypot(*np.diff(steps_yx, axis=0).T).sum())
    motion = Motion(global_yx_px=path, total_px=total, early_px=total * 0.6)
    thumbnail = f"steps/align/{index}.png"
    picks_yx = [(float(y), float(x)) for y, x in rng.uniform(30, (HEIGHT - 30, WIDTH - 30), size=(60 + index % 30, 2))]
    if index > 15:
        write_png(folder / thumbnail, _picture(picks_yx, rng))
    micrograph = Micrograph(
        image=f"session:steps/align/{index}.mrc",
        height_px=HEIGHT,
        width_px=WIDTH,
        bin=1.0,
        motion=motion,
        thumbnail=f"session:{thumbnail}",
    )
    micrograph_key = paper.make("align", unit, micrograph, inputs=f'{{"movie": ["{movie_key}"]}}', wall_s=4.0, cpu_s=7.0)
    fit_key = ""
    for step, worse in (("ctf_b", 1.2), ("ctf_a", 1.0)):
        fit_key = paper.make(step, unit, _fit(rng, worse, folder), inputs=f'{{"micrograph": ["{micrograph_key}"]}}')
    if index % 7 == 0:
        paper.settle("good", unit, "rejected", {"rejected": fit_key}, reason=f"resolution above 6 Å {HOSTILE}")
        paper.settle("find", unit, "skipped", weight=0, root="good", reason="resolution above 6 Å")
        paper.settle("classes", unit, "skipped", weight=0, root="good", reason="resolution above 6 Å")
        return
    paper.settle("good", unit, "item", {"out": fit_key, "ctf": fit_key})
    picks = Picks(count=len(picks_yx), diameter_ang=24.0, block=picks_block(picks_yx))
    paper.make("find", unit, picks, block=picks.block)
    paper.settle("classes", unit, "item", {}, weight=len(picks_yx))


def _fit(rng, worse: float, folder) -> CtfFit:
    frequency = np.linspace(0.01, 0.3, 120)
    fit = np.sin(4000 * np.pi * frequency**2) ** 2 * np.exp(-40 * frequency**2)
    defocus = float(rng.uniform(8000, 22000))
    return CtfFit(
        defocus_u_ang=defocus + 150,
        defocus_v_ang=defocus - 150,
        astigmatism_angle_deg=20.0,
        score=0.3,
        resolution_ang=float(rng.gamma(6, 0.5) + 2.8) * worse,
        spectrum="session:steps/ctf/spectrum.png",
        frequency_per_ang=frequency.tolist(),
        profile=(fit + rng.normal(size=120) * 0.05).tolist(),
        profile_fit=fit.tolist(),
    )


def _picture(picks_yx, rng) -> np.ndarray:
    """Dark discs at the picks on noise, with row 0 of the micrograph at the bottom of the picture."""
    image = rng.normal(140, 18, size=(HEIGHT, WIDTH))
    y, x = np.mgrid[-12:13, -12:13]
    for at_y, at_x in picks_yx:
        row, column = round(at_y), round(at_x)
        image[row - 12 : row + 13, column - 12 : column + 13] -= 50 * (y**2 + x**2 < 144)
    return np.clip(image, 0, 255).astype(np.uint8)[::-1]


def _finish(paper: PaperSession, folder, rng) -> None:
    y, x = np.mgrid[:256, :256] - 128
    radius = np.hypot(y, x)
    spectrum = 128 + 90 * np.sin(radius**2 / 300) * np.exp(-radius / 60)
    write_png(folder / "steps/ctf/spectrum.png", spectrum.astype(np.uint8))
    tiles = [np.exp(-(((y - 9 * k % 40) / (30 + 4 * k)) ** 2) - (x / (60 - 3 * k)) ** 2) for k in range(8)]
    board = np.vstack([np.hstack(tiles[:4]), np.hstack(tiles[4:])])
    write_png(folder / "steps/classes/board.png", (board * 200 + rng.normal(20, 6, board.shape).clip(0, 50)).astype(np.uint8))
    classes = [ClassInfo(id=k, count=(k * 37) % 90 + 20, resolution_ang=6.0 + k) for k in range(8)]
    averages = ClassAverages(
        stack="session:steps/classes/a.mrcs",
        picture="session:steps/classes/board.png",
        count=sum(one.count for one in classes),
        box_px=64,
        bin=2.0,
        classes=classes,
    )
    paper.publish("classes", 1, averages)
    paper.stream("movies", "open", "new data")
    paper.stream("movies", "closed", "no new file for 10 minutes")
    paper.notify("alert", f"align failed for 5 exposures in a row {HOSTILE}", "align")
    paper.notify("info", "the gain reference is new")
