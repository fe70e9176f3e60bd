"""A session with one micrograph whose picks can be edited by hand, which has run."""

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import Session, SessionDocument, create_session
from icestream.io.blocks import from_block
from icestream.observe.queries import open_view
from icestream.settings import Settings

PLACES = [(40, 60), (90, 30), (100, 100)]
SETTINGS = Settings(cores=2, min_free_gb=0)


def make_picked(home: Path) -> Session:
    """Make the session and run it."""
    (home / "data").mkdir(parents=True)
    (home / "one").mkdir()
    rng = np.random.default_rng(1)
    mrcfile.write(home / "data" / "mic_1.mrc", rng.normal(size=(128, 128)).astype(np.float32))
    rows = [f"{x},{y},0.5" for y, x in PLACES]
    (home / "one" / "mic_1.csv").write_text("\n".join(["x,y,score", *rows]), encoding="utf-8")
    steps: dict[str, Any] = {
        "mics": {"use": "import_micrographs", "params": {"max_files": 1, "stable_s": 0.1}},
        "drawn": {"use": "toys.pictures:draw_picture", "in": {"micrograph": "mics"}},
        "one": {"use": "import_picks", "in": {"micrograph": "drawn"}, "params": {"root": "one", "diameter_ang": 10}},
        "edited": {"use": "edit_picks", "in": {"picks": "one"}},
    }
    roots = {"micrographs": str(home / "data"), "one": str(home / "one")}
    document = {"name": "picked", "roots": roots, "acquisition": {"pixel_size_ang": 1.0}, "steps": steps}
    session = create_session(home / "session", SessionDocument.model_validate(document))
    run_session(session, SETTINGS)
    return session


def positions(session: Session) -> list[tuple[int, int]]:
    """Return where the edited picks are, in rows and columns."""
    with open_view(session) as view:
        (record,) = view.records("edited")
    return sorted((round(float(row["y_px"])), round(float(row["x_px"]))) for row in from_block(record.block or b""))
