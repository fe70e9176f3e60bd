"""CTFs that other programs found, in their files: STAR, CTFFIND's text, cryoSPARC's ``.cs``, Scipion's sets, and CSV.

The larger defocus comes first, whichever way the file has them: the angle is that of the larger one.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError, SourceGone
from icestream.io.cryosparc import first_column, read_cs_job, texts_of
from icestream.io.pick_files import rows_by_name
from icestream.io.scipion_sqlite import read_scipion_set
from icestream.io.star import read_star

CTF_SUFFIXES = (".star", ".txt", ".cs", ".csg", ".sqlite", ".csv")

Numbers = dict[str, NDArray[np.float64]]

CTF_NUMBERS = ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg")
_QUALITY = ("score", "resolution_ang")
_STAR = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfFigureOfMerit", "rlnCtfMaxResolution")
_CS = ("ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad", "ctf/phase_shift_rad")
_CS_SCORE = ("ctf/cross_corr_ctffind4", "ctf_stats/cross_corr", "ctf_stats/cross_corr_ctffind4")
_CS_RESOLUTION = ("ctf/ctf_fit_to_A", "ctf_stats/ctf_fit_to_A")
_CS_NAMES = ("micrograph_blob/path", "location/micrograph_path", "movie_blob/path")
_SCIPION = ("_defocusU", "_defocusV", "_defocusAngle", "_phaseShift", "_fitQuality", "_resolution")
_SCIPION_NAMES = ("_micObj._micName", "_micObj._filename", "_micName")
_CSV_NAMES = ("exposure", "micrograph", "micrograph_name", "name")


@dataclass(frozen=True)
class CtfFile:
    """The CTFs of one file.

    Attributes
    ----------
    numbers
        ``defocus_u_ang`` (the larger), ``defocus_v_ang``, ``astigmatism_angle_deg`` (from x towards y), ``phase_shift_deg``,
        ``score`` and ``resolution_ang``, ``(n,)`` each; NaN where the file has none.
    rows
        Which row is of which micrograph, by its name without folder and suffix; unset in files of one micrograph.
    """

    numbers: Numbers
    rows: Mapping[str, NDArray[np.int64]] | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.numbers["defocus_u_ang"])


def read_ctf_file(path: Path) -> CtfFile:
    """Read the CTFs in a file; its suffix says what it is.

    Raises
    ------
    FileFormatError
        It is no such file, or has no CTF.
    SourceGone
        It is not there.
    """
    if not path.is_file():
        raise SourceGone(f"{path}: there is no such file")
    said = path.stat()
    return _read(path, said.st_mtime_ns, said.st_size)


@lru_cache(maxsize=2)
def _read(path: Path, _modified_ns: int, _size: int) -> CtfFile:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise FileFormatError(path, f"CTFs are read from files with {', '.join(CTF_SUFFIXES)}")
    try:
        found = reader(path)
    except (KeyError, IndexError, ValueError, UnicodeDecodeError) as error:
        raise FileFormatError(path, f"no file of CTFs: {error}") from error
    defocus = found.numbers["defocus_u_ang"]
    if len(defocus) and not np.isfinite(defocus).any():
        raise FileFormatError(path, "no file of CTFs: no defocus in it is a number")
    return CtfFile(order_defocus(found.numbers), found.rows)


def order_defocus(numbers: Numbers) -> Numbers:
    """Return the same CTFs with the larger defocus first and the angle in (-90, 90]."""
    u, v = numbers["defocus_u_ang"], numbers["defocus_v_ang"]
    swapped = u < v
    angle = numbers["astigmatism_angle_deg"] + np.where(swapped, 90.0, 0.0)
    angle = 90.0 - np.mod(90.0 - angle, 180.0)
    changed = {"defocus_u_ang": np.where(swapped, v, u), "defocus_v_ang": np.where(swapped, u, v), "astigmatism_angle_deg": angle}
    return {**numbers, **changed}


def _read_star(path: Path) -> CtfFile:
    table = next((one for one in read_star(path).values() if "rlnDefocusU" in one), None)
    if table is None:
        raise FileFormatError(path, "no table has a column rlnDefocusU")
    columns = zip((*CTF_NUMBERS, *_QUALITY), _STAR, strict=True)
    numbers = {name: table.floats(label) if label in table else _unset(name, len(table)) for name, label in columns}
    name = next((label for label in ("rlnMicrographName", "rlnMicrographMovieName") if label in table), None)
    return CtfFile(numbers, None if name is None else _one_each(table.texts(name)))


def _one_each(names: list[str]) -> Mapping[str, NDArray[np.int64]]:
    """Return the row of each micrograph; of a table of particles that of its first."""
    return {name: rows[:1] for name, rows in rows_by_name(names).items()}


def _unset(name: str, count: int) -> NDArray[np.float64]:
    return np.zeros(count) if name == "phase_shift_deg" else np.full(count, np.nan)


def _read_ctffind(path: Path) -> CtfFile:
    """Read the text of CTFFIND 4 or 5: number, both defocus, angle, phase shift in radians, correlation, resolution, and more."""
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "#"]
    if not lines:
        raise FileFormatError(path, "has no line of numbers: CTFFIND has not finished it, or failed")
    if len({len(line) for line in lines}) > 1 or len(lines[0]) < 7 or float(lines[0][0]) != 1.0:
        raise FileFormatError(path, f"not the text of CTFFIND: a line of it has 7 numbers or more, here {len(lines[0])}")
    if len(lines) > 1:
        raise FileFormatError(path, f"has the CTFs of a stack of {len(lines)} images, one is expected")
    values = np.array([[float(value) for value in line[:7]] for line in lines])  # (1, 7)
    values[:, 4] = np.rad2deg(values[:, 4])
    values[~np.isfinite(values[:, 6]), 6] = np.nan
    return CtfFile(dict(zip((*CTF_NUMBERS, *_QUALITY), values[:, 1:].T, strict=True)))


def _read_cs(path: Path) -> CtfFile:
    rows = read_cs_job(path)
    known = rows.dtype.names or ()
    if _CS[0] not in known:
        raise FileFormatError(path, f"no column {_CS[0]}: cryoSPARC has not estimated these CTFs")
    numbers = {name: rows[column].astype(np.float64) for name, column in zip(CTF_NUMBERS, _CS, strict=True)}
    for name in ("astigmatism_angle_deg", "phase_shift_deg"):
        numbers[name] = np.rad2deg(numbers[name])
    for name, columns in zip(_QUALITY, (_CS_SCORE, _CS_RESOLUTION), strict=True):
        found = first_column(rows, columns)
        numbers[name] = _unset(name, len(rows)) if found is None else found
    column = next((one for one in _CS_NAMES if one in known), None)
    return CtfFile(numbers, None if column is None else _one_each(texts_of(rows[column])))


def _read_scipion(path: Path) -> CtfFile:
    items = read_scipion_set(path)
    numbers: Numbers = {}
    for name, column in zip((*CTF_NUMBERS, *_QUALITY), _SCIPION, strict=True):
        found = items.numbers(column)
        if found is None and name in CTF_NUMBERS[:3]:
            raise FileFormatError(path, f"no column {column}: not a set of CTFs of Scipion")
        numbers[name] = _unset(name, items.count) if found is None else found
    numbers["phase_shift_deg"] = np.nan_to_num(numbers["phase_shift_deg"])
    names = items.texts(*_SCIPION_NAMES)
    return CtfFile(numbers, None if names is None else _one_each(names))


def _read_csv(path: Path) -> CtfFile:
    """Read the columns that `icestream table` writes: the names of the record, and the exposure."""
    with path.open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or CTF_NUMBERS[0] not in rows[0]:
        heads = ", ".join(rows[0]) if rows else "no row"
        raise FileFormatError(path, f"no column {CTF_NUMBERS[0]}; it has {heads}")
    numbers = {}
    for name in (*CTF_NUMBERS, *_QUALITY):
        missing = 0.0 if name == "phase_shift_deg" else np.nan
        numbers[name] = np.array([float(row.get(name) or missing) for row in rows], dtype=np.float64)
    column = next((one for one in _CSV_NAMES if one in rows[0]), None)
    return CtfFile(numbers, None if column is None else _one_each([row[column] for row in rows]))


_READERS = {
    ".star": _read_star,
    ".txt": _read_ctffind,
    ".cs": _read_cs,
    ".csg": _read_cs,
    ".sqlite": _read_scipion,
    ".csv": _read_csv,
}
