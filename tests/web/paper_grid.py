"""A session on paper with exposures on a simulated grid, as EPU describes it: CTFs whose resolution goes with the ice."""

from pathlib import Path

from paper_session import PaperSession, new_session

from icestream.flow.storage import schema
from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.microscope.grid import FIRST_HOLE, FIRST_SQUARE, GridSettings, SimulatedGrid, beam_shift_yx, make_grid
from icestream.microscope.grid_files import write_epu_grid
from icestream.records import CtfFit, ExposureMetadata, GridMap, Movie
from icestream.steps.movies.grid import find_grid_files, map_grid
from icestream.testing.context import StepBench

STEPS = {
    "movies": {"use": "import_movies"},
    "ctf": {"use": "ctf", "in": {"micrograph": "movies"}},
    "grid_files": {"use": "import_grid"},
    "grid": {"use": "map_grid", "in": {"files": "grid_files"}},
}
KINDS = ("source", "map", "source", "map")
SETTINGS = GridSettings(rows=3, columns=3, visited_per_square=6, exposures_per_hole=2)


def paper_grid(seed: int = 3) -> SimulatedGrid:
    return make_grid(SETTINGS, seed=seed, key=6)


def write_grid(folder: Path, *, n_exposures: int = 72, with_map: bool = True, microscope: str | None = None) -> PaperSession:
    """Store exposures in the first six squares, one of which failed, and the map of all nine."""
    steps = STEPS if with_map else {name: spec for name, spec in STEPS.items() if not name.startswith("grid")}
    paper = PaperSession(new_session(folder, steps, name="grid", acquisition={"pixel_size_ang": 1.0, "voltage_kv": 300.0}))
    for (step, spec), kind in zip(steps.items(), KINDS, strict=False):
        links = {port: [target] for port, target in spec.get("in", {}).items()}  # type: ignore[attr-defined]
        paper.revise(step, kind, links=links)
    grid = paper_grid()
    for index in range(n_exposures):
        truth = grid.expose(index)
        name = f"FoilHole_{FIRST_HOLE + truth.hole}_Data_{index + 1}"
        unit = paper.expose(name, index + 1)
        shift_y, shift_x = beam_shift_yx(truth)
        metadata = ExposureMetadata(
            stage_y_um=truth.stage_y_um,
            stage_x_um=truth.stage_x_um,
            beam_shift_y=shift_y,
            beam_shift_x=shift_x,
            grid_square=str(FIRST_SQUARE + truth.square),
            foil_hole=str(FIRST_HOLE + truth.hole),
            microscope=microscope,
        )
        shape = {"n_frames": 4, "height_px": 64, "width_px": 64}
        paper.make("movies", unit, Movie(file=f"raw:{name}.tif", format="tiff", size_bytes=9, metadata=metadata, **shape))
        if index == 5:
            paper.fail("ctf", unit, "no signal")
        else:
            paper.make("ctf", unit, fit(3.0 + 6.0 * (1.0 - truth.good)))
    if with_map:
        drawn = _map(folder, grid)
        key = paper.store_result("grid", "grid:v1", drawn, block=drawn.block)
        values = {"revision": paper.revisions["grid"], "version": 1, "key": key, "pruned": False}
        paper.add(schema.snapshot, at=paper.now, seq=paper.store.next_seq(), **values)
    paper.store.close("every stream closed")
    (folder / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
    (folder / "raw").mkdir(exist_ok=True)
    return paper


def fit(resolution_ang: float) -> CtfFit:
    return CtfFit(
        defocus_u_ang=10000.0,
        defocus_v_ang=10000.0,
        astigmatism_angle_deg=0.0,
        phase_shift_deg=0.0,
        resolution_ang=resolution_ang,
        score=0.5,
    )


def _map(folder: Path, grid: SimulatedGrid) -> GridMap:
    write_epu_grid(folder / "scope", grid, seed=1)
    files = find_grid_files(folder / "scope", "grid", None)
    assert files is not None
    return map_grid(files, StepBench(folder, roots={"grid": folder / "scope"}))
