"""A session on paper with a filter of CTFs, which has set aside those coarser than 6 Å."""

from pathlib import Path

from paper_session import PaperSession, new_session

from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.records import CtfFit, Micrograph, Motion, Movie

STEPS = {
    "movies": {"use": "import_movies"},
    "align": {"use": "motion", "in": {"movie": "movies"}},
    "ctf": {"use": "ctf", "in": {"micrograph": "align"}},
    "good": {
        "use": "ctf_filter",
        "in": {"micrograph": "align", "ctf": "ctf"},
        "params": {"max_resolution_ang": 6.0, "defocus_um": [0.3, 4.0]},
        "label": "Good CTFs",
    },
    "moved": {"use": "max_shift", "in": {"micrograph": "good.micrograph"}},
}
RESOLUTIONS_ANG = [3.0 + 0.1 * index for index in range(40)]
"""Of 40 exposures: 31 are kept."""


def write_filtered(folder: Path, *, repeat: int = 1) -> PaperSession:
    """Store an exposure for each resolution, ``repeat`` times over."""
    paper = PaperSession(new_session(folder, STEPS, name="filtered", acquisition={"pixel_size_ang": 1.0, "voltage_kv": 300.0}))
    for step, kind in (("movies", "source"), ("align", "map"), ("ctf", "map"), ("good", "filter"), ("moved", "filter")):
        links = {port: [target] for port, target in STEPS[step].get("in", {}).items()}  # type: ignore[attr-defined]
        paper.revise(step, kind, links=links)
    for number, resolution_ang in enumerate(RESOLUTIONS_ANG * repeat, start=1):
        paper.now += 60.0
        _expose(paper, number, resolution_ang)
    paper.store.close("every stream closed")
    (paper.session.folder / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
    return paper


def _expose(paper: PaperSession, number: int, resolution_ang: float) -> None:
    unit = paper.expose(f"mic_{number:04d}", number)
    paper.make(
        "movies", unit, Movie(file=f"raw:m{number}.tif", n_frames=4, height_px=64, width_px=64, format="tiff", size_bytes=9)
    )
    defocus_ang = 10000.0 + 500.0 * (1 + (number - 1) % len(RESOLUTIONS_ANG))
    path = [(0.0, 0.0), (float(number), 0.0), (float(number), 1.0)]
    motion = Motion(global_yx_px=path, total_px=number + 1.0, early_px=1.0)
    micrograph = Micrograph(
        image=f"session:steps/align/{number}.mrc", height_px=64, width_px=64, bin=1.0, motion=motion, thumbnail=None
    )
    image = paper.make("align", unit, micrograph)
    fit = CtfFit(
        defocus_u_ang=defocus_ang,
        defocus_v_ang=defocus_ang,
        astigmatism_angle_deg=0.0,
        phase_shift_deg=0.0,
        score=0.5,
        resolution_ang=resolution_ang,
        spectrum="session:steps/ctf/none.png",
        frequency_per_ang=[0.01, 0.1],
        profile=[0.1, 0.9],
        profile_fit=[0.0, 1.0],
    )
    ctf = paper.make("ctf", unit, fit)
    if resolution_ang > 6.0:
        paper.settle("good", unit, "rejected", {"rejected": image, "rejected.ctf": ctf}, reason="coarser than 6 Å")
        paper.settle("moved", unit, "skipped", weight=0, root="good")
    else:
        paper.settle("good", unit, "item", {"out": image, "micrograph": image, "ctf": ctf})
        paper.settle("moved", unit, "item", {"out": image, "micrograph": image})
