"""The grid that exposures are on: finding the files that describe it, and reading squares, holes and atlas from them."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.grid.placing import fit_placement
from icestream.counting import counted
from icestream.flow import (
    Arrival,
    Context,
    Field,
    FileFormatError,
    ItemError,
    Params,
    Pulse,
    Second,
    SourceContext,
    SourceGone,
    Watch,
    step,
)
from icestream.io.blocks import to_block
from icestream.io.epu_grid import read_atlas_squares, read_epu_square
from icestream.io.holes import MOST_HOLES, HoleTable, ListedSquare, gather, read_hole_table
from icestream.io.image import read_image
from icestream.io.navigator import read_navigator
from icestream.io.preview import write_preview
from icestream.records import AtlasPlace, GridFiles, GridMap

Software = Literal["epu", "serialem", "list"]

_DEPTHS = ("", "*/", "*/*/")
_PATTERNS: dict[Software, str] = {"epu": "Metadata/GridSquare_*.dm", "serialem": "*.nav", "list": "holes.*"}
_LISTS = (".csv", ".json")
_MOST_FILES = 4000
_ATLAS_PX = 2048
_LEAST_SQUARES = 3


class ImportGridParams(Params):
    """Where the files are that describe the grid."""

    root: str = Field("grid", pattern=r"^[a-z][a-z0-9_]*$", description="Named folder of the session to look in")
    software: Literal["epu", "serialem", "list"] | None = Field(
        None,
        description="Whose files: epu (`Metadata/GridSquare_….dm`, `Atlas/Atlas.dm`), serialem (`….nav`), list (`holes.csv` or "
        "`holes.json`); unset: the first of these that is there",
    )
    rescan_s: Second = Field(
        30.0, gt=0, description="Look for changes this often", json_schema_extra={"operational": True, "unit": "s"}
    )
    idle_s: Second = Field(
        43200.0,
        gt=0,
        description="Close the stream after this long without a change",
        json_schema_extra={"operational": True, "unit": "s"},
    )


@step.source("import_grid", version=1, output=GridFiles)
def import_grid(params: ImportGridParams, ctx: SourceContext) -> Watch:
    """Watch the files in which the acquisition software lists grid squares, holes and the atlas.

    They are looked for in the folder and two levels below it. A version is published whenever they have changed.
    """
    folder = ctx.path(f"{params.root}:.")
    known, changed_at, looked_at = "", time.monotonic(), float("-inf")
    note = "no description of a grid is there yet"
    while not ctx.stopping():
        now = time.monotonic()
        if now - looked_at >= params.rescan_s:
            looked_at = now
            found = find_grid_files(folder, params.root, params.software)
            identity = "" if found is None else _identity(folder, found)
            if found is not None and identity != known:
                known, changed_at = identity, now
                note = f"{counted(len(found.files), 'file', 'describes/describe')} the grid ({found.software})"
                yield Arrival(identity, f"grid of {found.software}", found)
        if now - changed_at >= params.idle_s:
            return f"no change for {params.idle_s:g} s"
        yield Pulse(note)
        ctx.wait(0.2)
    return "stopping"


def find_grid_files(folder: Path, root: str, software: Software | None) -> GridFiles | None:
    """Return the files that describe the grid; None while there are none."""
    for kind in (software,) if software is not None else tuple(_PATTERNS):
        files = [path for path in _glob(folder, _PATTERNS[kind]) if kind != "list" or path.suffix.lower() in _LISTS]
        if not files:
            continue
        atlas = next(iter(_glob(folder, "Atlas/Atlas.dm")), None) if kind == "epu" else None
        picture = None if atlas is None else max(atlas.parent.glob("Atlas_*.jpg"), default=None)
        refs = [_ref(root, folder, path) for path in files[:_MOST_FILES]]
        beside = {name: _ref(root, folder, path) for name, path in (("atlas", atlas), ("picture", picture)) if path is not None}
        return GridFiles(software=kind, files=refs, **beside)
    return None


def _glob(folder: Path, pattern: str) -> Iterator[Path]:
    """Give the files of the shallowest folders that have some, by name."""
    for depth in _DEPTHS:
        try:
            found = sorted(path for path in folder.glob(depth + pattern) if path.is_file())
        except OSError:  # a folder that may not be entered
            continue
        if found:
            yield from found
            return


def _ref(root: str, folder: Path, path: Path) -> str:
    return f"{root}:{path.relative_to(folder).as_posix()}"


def _identity(folder: Path, found: GridFiles) -> str:
    """Return what differs whenever one of the files has another name, size or time."""
    digest = hashlib.sha256()
    for ref in (*found.files, found.atlas, found.picture):
        if ref is not None:
            digest.update(ref.encode())
            digest.update(_stamp(folder / ref.partition(":")[2]).encode())
    return f"grid|{len(found.files)}|{digest.hexdigest()}"


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "gone"
    return f"{status.st_size} {status.st_mtime_ns}"


@step.map("map_grid", version=1, memory_gb=0.5)
def map_grid(files: GridFiles, ctx: Context) -> GridMap:
    """Read squares, holes and atlas from the files of the acquisition software, and find where the atlas is on the stage.

    The picture of the atlas is placed by the squares whose positions are known on the stage and in the picture: turn, scale and
    mirror come out of a least-squares fit of at least three. Files that cannot be read are named in the result.

    Raises
    ------
    ItemError
        None of the files could be read.
    """
    missing: list[str] = []
    squares = [square for ref in files.files for square in _read(files.software, ctx.path(ref), missing)]
    table = gather(squares)
    if not table.squares and not table.loose and missing:
        raise ItemError(f"no square and no hole: {missing[0]}")
    missing += [note for square in squares for note in square.notes]
    rows = table.rows()
    n_listed = sum(len(square.holes) for square in table.squares) + len(table.loose)
    if n_listed > MOST_HOLES:
        missing.append(f"{counted(n_listed, 'hole')} are listed, the first {MOST_HOLES} are used")
    place = _place_atlas(files, table, ctx, missing)
    picture = _publish_picture(files, ctx, missing)
    return GridMap(
        software=files.software,
        n_holes=len(rows),
        squares=table.places(),
        picture=picture,
        place=None if picture is None else place,
        missing=missing,
        block=to_block(rows),
    )


def _read(software: Software, path: Path, missing: list[str]) -> list[ListedSquare]:
    try:
        if software == "epu":
            return [read_epu_square(path)]
        return read_navigator(path) if software == "serialem" else read_hole_table(path)
    except FileFormatError as error:
        missing.append(f"{path.name} was not read: {error.reason}")
    except (SourceGone, OSError) as error:
        missing.append(f"{path.name} was not read: {getattr(error, 'strerror', None) or error}")
    return []


def _place_atlas(files: GridFiles, table: HoleTable, ctx: Context, missing: list[str]) -> AtlasPlace | None:
    if files.atlas is None:
        missing.append("no atlas was found" if files.software == "epu" else "the atlas of this software is not read")
        return None
    path = ctx.path(files.atlas)
    try:
        atlas = read_atlas_squares(path)
    except (FileFormatError, SourceGone, OSError) as error:
        missing.append(f"{path.name} was not read: {error}")
        return None
    stage = {one.name: (one.y_um, one.x_um) for one in table.places() if one.y_um is not None and one.x_um is not None}
    both = [name for name in atlas.centres_yx_px if name in stage]
    placed = None
    if len(both) >= _LEAST_SQUARES:
        placed = fit_placement(_array(atlas.centres_yx_px, both), _array(stage, both), least=_LEAST_SQUARES)
    if placed is None:
        missing.append(
            f"the atlas is not placed: {counted(len(both), 'square', 'is/are')} known on it and on the stage; "
            "three that are not in one line are needed"
        )
        return None
    size = atlas.size_px
    if size is None:
        missing.append("the atlas is not placed: its file does not say how large the image is")
        return None
    corner, down, right = (placed.place(np.array([point]))[0] for point in ((0.0, 0.0), (size[0], 0.0), (0.0, size[1])))
    return AtlasPlace(
        corner_yx_um=_pair(corner),
        down_yx_um=_pair(down - corner),
        right_yx_um=_pair(right - corner),
        rms_um=placed.rms_um,
        n_squares=placed.n_points,
    )


def _array(places: dict[str, tuple[float, float]], names: list[str]) -> NDArray[np.float64]:
    return np.array([places[name] for name in names], np.float64)


def _pair(yx: NDArray[np.float64]) -> tuple[float, float]:
    return float(yx[0]), float(yx[1])


def _publish_picture(files: GridFiles, ctx: Context, missing: list[str]) -> str | None:
    if files.picture is None:
        if files.atlas is not None:
            missing.append("there is no Atlas_….jpg beside Atlas.dm")
        return None
    path = ctx.path(files.picture)
    try:
        image = read_image(path)
    except (FileFormatError, SourceGone, OSError) as error:
        missing.append(f"{path.name} was not read: {error}")
        return None
    with ctx.publish("_atlas.jpg") as picture:
        write_preview(picture.path, image, max_px=_ATLAS_PX, percentiles=(0, 100))
    return picture.ref
