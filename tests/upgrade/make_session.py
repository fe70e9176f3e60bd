"""Make a session that rehearses an upgrade: begun by this version of icestream, still collecting; and what it was to become.

The folder ``0.1.0`` was made by icestream 0.1.0 (tables of version 3). At each release make the next one, before the version is
raised, and keep the older ones; the tests take up every folder that is here::

    PYTHONPATH=tests .venv/bin/python -m upgrade.make_session tests/upgrade/0.2.0

It takes some minutes and is done on one core, so that exposures come to every step in one order. ``session.tar.xz`` has the
session, the movies that have come (``movies``), those that are still to come (``arriving``) and the gain. ``truth.json.xz`` has
what this version shows of the session, what it makes of it in the end (``continued``), and what it makes of all movies at once
with the same workflow (``afresh``).
"""

import argparse
import json
import lzma
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from upgrade.reading import (
    VIEWS,
    ask,
    icestream,
    let_others_arrive,
    make_session,
    read_report,
    read_session,
    rows,
    run,
    schema_version,
    start,
    unpack,
)

MICROSCOPE = {
    "height_px": 320,
    "width_px": 320,
    "n_frames": 4,
    "pixel_size_ang": 2,
    "dose_per_frame_e_per_ang2": 1.25,
    "format": "mrc",
    "mrc_type": "int8",
    "n_particles": 12,
    "particle_contrast": 1,
    "b_factor_ang2": 20,
    "defocus_um": "[1.2, 2.0]",
    "drift_px": "[1, 3]",
    "local_motion_px": 0.5,
    "astigmatism_ang": "[50, 200]",
    "faults": "{2: truncated, 5: zero_frames}",
}
N_MOVIES, N_FIRST = 10, 6
EPOCH_S = 1_700_000_000
"""Time of the first movie: whole seconds, which any archive keeps."""

LARGEST_B = 20_000
"""Micrographs and larger pictures are left out of the archive: nothing reads them again. The pictures of one exposure stay."""

SHOWN = "mic_0005"
QUIET_S = 10


def main() -> None:
    """Make the files of one version."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("target", type=Path, help="folder of this version; it is made")
    target = parser.parse_args().target
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="upgrade_") as folder:
        work = Path(folder)
        os.environ["ICESTREAM_LEDGER"] = str(work / "ledger")
        movies = make_movies(work)
        begin(work / "begun", movies)
        pack(work / "begun", target / "session.tar.xz")
        begun = unpack(target / "session.tar.xz", work / "shown")
        truth = {
            "schema": schema_version(begun),
            "views": {name: ask(begun, *words) for name, words in VIEWS.items()},
            "report": read_report(begun),
            "begun": read_session(begun),
            "continued": continue_copy(target / "session.tar.xz", work / "continued"),
            "afresh": compute_afresh(work / "afresh", movies),
        }
    text = json.dumps(truth, separators=(",", ":"))
    (target / "truth.json.xz").write_bytes(lzma.compress(text.encode(), preset=9))


def make_movies(work: Path) -> list[Path]:
    """Write all movies and a gain whose values are few, so that it compresses."""
    given = [word for name, value in MICROSCOPE.items() for word in ("--set", f"{name}={value}")]
    icestream("simulate", work / "scope", "--movies", str(N_MOVIES), "--seed", "7", *given)
    gain = work / "scope" / "gain.mrc"
    values = np.fromfile(gain, "<f4", offset=1024)
    gain.write_bytes(gain.read_bytes()[:1024] + (np.round(values * 64) / 64).astype("<f4").tobytes())
    movies = sorted((work / "scope" / "movies").iterdir())
    for index, path in enumerate([gain, *movies]):
        os.utime(path, (EPOCH_S + index, EPOCH_S + index))
    return movies


def lay_out(folder: Path, movies: list[Path]) -> Path:
    """Make a session in ``folder`` with some of the movies."""
    for part in ("movies", "arriving", "gain"):
        (folder / part).mkdir(parents=True)
    for path in movies:
        shutil.copy2(path, folder / "movies")
    shutil.copy2(movies[0].parents[1] / "gain.mrc", folder / "gain")
    return make_session(folder)


@contextmanager
def running(session: Path) -> Iterator[None]:
    """Keep a runner at work that is stopped at the end."""
    with start(session) as runner:
        yield
        icestream("stop", session)
        runner.wait()


def wait_until_quiet(session: Path) -> None:
    """Wait until the first movies have come, nothing runs, and nothing has changed for some seconds."""
    query = (
        "SELECT (SELECT max(seq) FROM outcome) AS seq, (SELECT count(*) FROM lease) AS running, "
        "(SELECT count(*) FROM exposure WHERE source = 'movies') AS movies"
    )
    seen, since = None, time.monotonic()
    while time.monotonic() - since < QUIET_S:
        time.sleep(0.5)
        state = rows(session, query)[0] if (session / "icestream.db").exists() else None
        if state is None or state != seen or state["running"] or state["movies"] < N_FIRST:
            seen, since = state, time.monotonic()


def begin(folder: Path, movies: list[Path]) -> None:
    """Process the first movies, do to the session what people do, and leave it in the middle."""
    session = lay_out(folder, movies[:N_FIRST])
    with running(session):
        wait_until_quiet(session)
        icestream("pause", session, "--reason", "changing the apertures")
        icestream("set", session, "clean", "max_dark_share=0.9", "--reason", "more dirt is fine")
        icestream("resume", session)
        icestream("set", session, "classes", "n_classes=3")
        icestream("branch", session, "picks", "--as", "wide_picks", "diameter_ang=[100, 180]", "--only")
        icestream("branch", session, "low_defocus", "--as", "lowest_defocus", "where=defocus_u_ang < 15000", "--only")
        wait_until_quiet(session)
        icestream("release", session, "released")
        icestream("release", session, "picks", expect=(1,))
        icestream("close", session, "half")
        icestream("accept", session, "mic_0004", "--step", "low_defocus", "--reason", "looks fine")
        icestream("accept", session, "mic_0006", "--step", "right_dose", "--reason", "only two frames are empty")
        icestream("reject", session, "mic_0005", "--step", "good", "--reason", "crystalline ice")
        icestream("recompute", session, "ctf", "mic_0002", "defocus_um=[1.0, 2.6]", "--reason", "a second ring")
        icestream("retry", session, "second_motion")
        icestream("restart", session, "--from", "quality")
        wait_until_quiet(session)
    icestream("recompute", session, "aligned", "mic_0001", "local=no", "--reason", "too few frames")
    icestream("reject", session, "mic_0002", "--step", "half")
    icestream("withdraw", session, "mic_0002", "--step", "half")
    for path in movies[N_FIRST:]:
        shutil.copy2(path, folder / "arriving")


def pack(folder: Path, archive: Path) -> None:
    """Write the archive, without the large images."""
    with tarfile.open(archive, "w:xz", preset=9, format=tarfile.PAX_FORMAT) as packed:
        packed.add(folder, arcname=".", filter=choose)


def choose(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out owners, and what nothing reads again."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    path = Path(member.name)
    if member.name.endswith(("-wal", "-shm")):
        return None
    image = "steps" in path.parts and (path.suffix == ".mrc" or (path.suffix == ".png" and member.size > LARGEST_B))
    if image and (path.suffix == ".mrc" or SHOWN not in path.name or "second_motion" in path.parts):
        return None
    return member


def continue_copy(archive: Path, folder: Path) -> dict[str, Any]:
    """Unpack the session somewhere else and let it run to its end."""
    session = unpack(archive, folder)
    let_others_arrive(session)
    run(session)
    return read_session(session)


def compute_afresh(folder: Path, movies: list[Path]) -> dict[str, Any]:
    """Compute all movies with the workflow as it was at the beginning."""
    session = lay_out(folder, movies)
    run(session)
    return read_session(session)


if __name__ == "__main__":
    main()
