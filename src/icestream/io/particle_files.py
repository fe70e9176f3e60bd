"""Particles that other programs have cut, in their files: STAR (RELION 3.0 to 5), cryoSPARC's ``.cs``, and Scipion's sets.

What differs from program to program is settled here. Images are counted from 0 and named as the file names them
(`find_stack` finds the file). Poses are RELION's angles (``rotations`` of `algorithms.volumes`), shifts are in Å and say where
the particle is beyond the middle of its box: the negatives of RELION's origins and of cryoSPARC's shifts. Half sets are 0 and 1,
classes count from 1. Of two defocus values the larger comes first. Optics groups are numbered anew, without gaps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from icestream.errors import FileFormatError
from icestream.io.cryosparc import read_cs_job, texts_of
from icestream.io.ctf_files import CTF_NUMBERS, Numbers, order_defocus
from icestream.io.pick_files import cs_positions, stem_of
from icestream.io.scipion_sqlite import read_scipion_set
from icestream.io.star import Table, read_star

PARTICLE_SUFFIXES = (".star", ".cs", ".csg", ".sqlite")

_STAR = {
    "x_px": "rlnCoordinateX",
    "y_px": "rlnCoordinateY",
    "score": "rlnAutopickFigureOfMerit",
    "defocus_u_ang": "rlnDefocusU",
    "defocus_v_ang": "rlnDefocusV",
    "astigmatism_angle_deg": "rlnDefocusAngle",
    "phase_shift_deg": "rlnPhaseShift",
    "rot_deg": "rlnAngleRot",
    "tilt_deg": "rlnAngleTilt",
    "psi_deg": "rlnAnglePsi",
    "class_id": "rlnClassNumber",
}
_CS_CTF = ("ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad", "ctf/phase_shift_rad")
_CS_OPTICS = ("ctf/exp_group_id", "ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast", "blob/psize_A", "location/micrograph_psize_A")
_SCIPION = {
    "x_px": "_coordinate._x",
    "y_px": "_coordinate._y",
    "defocus_u_ang": "_ctfModel._defocusU",
    "defocus_v_ang": "_ctfModel._defocusV",
    "astigmatism_angle_deg": "_ctfModel._defocusAngle",
    "phase_shift_deg": "_ctfModel._phaseShift",
    "class_id": "_classId",
}
_UNSET = -1.0
_SCIPION_OPTICS = (
    "_acquisition._voltage",
    "_acquisition._sphericalAberration",
    "_acquisition._amplitudeContrast",
    "_samplingRate",
)


@dataclass(frozen=True)
class Optics:
    """What particles of one group share; unset where the file does not say it."""

    name: str
    voltage_kv: float | None = None
    cs_mm: float | None = None
    amplitude_contrast: float | None = None
    pixel_size_ang: float | None = None
    """Of the images, which may be of a coarser scale than the micrograph."""
    raw_pixel_ang: float | None = None
    """Of the movie, or of the micrograph where that is all that is said."""
    premultiplied: bool = False


@dataclass(frozen=True)
class ParticleFile:
    """The particles of one file; every column is ``(n,)``.

    Attributes
    ----------
    stacks, slices
        In which file the image of each is, as the file names it, and its number there, from 0.
    micrographs
        The micrograph of each; empty where the file does not say it.
    groups, optics
        The place of its optics group among these.
    numbers
        What the file says of ``y_px``, ``x_px``, ``score``, the CTF, ``rot_deg``, ``tilt_deg``, ``psi_deg``, ``shift_y_ang``,
        ``shift_x_ang``, ``class_id`` and ``half``.
    bright
        Protein is bright in the images; unset where the file does not say it.
    """

    stacks: list[str]
    slices: NDArray[np.int64]
    micrographs: list[str]
    groups: NDArray[np.int64]
    optics: tuple[Optics, ...]
    numbers: Numbers
    bright: bool | None = None

    @cached_property
    def by_stack(self) -> dict[str, NDArray[np.int64]]:
        """Which rows are of which stack, by its name without folder and suffix."""
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(self.stacks):
            rows.setdefault(stem_of(name), []).append(row)
        return {name: np.array(some, dtype=np.int64) for name, some in rows.items()}


def read_particle_file(path: Path) -> ParticleFile:
    """Read the particles in a file; its suffix says what it is.

    The rows of a ``.cs`` file are completed by the passthrough file of its job that is beside it, those of a ``.csg`` by all
    files of the group.

    Raises
    ------
    FileFormatError
        It is no such file, or names no images.
    SourceGone
        It is not there.
    """
    readers = {".star": _read_star, ".cs": _read_cs, ".csg": _read_cs, ".sqlite": _read_scipion}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise FileFormatError(path, f"particles are read from files with {', '.join(PARTICLE_SUFFIXES)}")
    try:
        found = reader(path)
    except (KeyError, IndexError, ValueError, UnicodeDecodeError) as error:
        raise FileFormatError(path, f"no file of particles: {error}") from error
    if len(found.slices) and found.slices.min() < 0:
        raise FileFormatError(path, "numbers the images of a stack from below 1")
    return found


def _read_star(path: Path) -> ParticleFile:
    tables = read_star(path)
    table = next((one for one in tables.values() if "rlnImageName" in one), None)
    if table is None:
        raise FileFormatError(path, "no table has a column rlnImageName: it names no images of particles")
    pairs = [name.partition("@") for name in table.texts("rlnImageName")]
    if any(not mark for _, mark, _ in pairs):
        raise FileFormatError(path, "an image is not named as number@stack")
    optics = tables.get("optics")
    if optics is not None and "rlnOpticsGroup" in table:
        groups, found = _optics_of_table(path, table, optics)
    else:
        groups, found = _optics_of_rows(table)
    numbers = {name: table.floats(label) for name, label in _STAR.items() if label in table}
    pixels = np.array([one.pixel_size_ang or np.nan for one in found])[groups] if len(table) else np.zeros(0)
    for axis in ("y", "x"):
        origin = f"rlnOrigin{axis.upper()}"
        if f"{origin}Angst" in table:
            numbers[f"shift_{axis}_ang"] = -table.floats(f"{origin}Angst")
        elif origin in table:
            numbers[f"shift_{axis}_ang"] = -table.floats(origin) * pixels
    if "rlnRandomSubset" in table:
        numbers["half"] = table.floats("rlnRandomSubset") - 1
    return ParticleFile(
        stacks=[name for _, _, name in pairs],
        slices=np.array([int(number) - 1 for number, _, _ in pairs], dtype=np.int64),
        micrographs=table.texts("rlnMicrographName") if "rlnMicrographName" in table else [""] * len(table),
        groups=groups,
        optics=found,
        numbers=_settle_ctf(numbers),
    )


def _optics_of_table(path: Path, table: Table, optics: Table) -> tuple[NDArray[np.int64], tuple[Optics, ...]]:
    """Return the groups of RELION 3.1 and later, whose numbers may have gaps after particles were selected or joined."""
    numbers = optics.ints("rlnOpticsGroup").tolist()
    places = {number: place for place, number in enumerate(numbers)}
    used = table.ints("rlnOpticsGroup").tolist()
    unknown = sorted(set(used) - places.keys())
    if unknown:
        raise FileFormatError(path, f"particles are of optics group {unknown[0]}, which is not among {numbers}")

    def value(label: str, row: int) -> float | None:
        return float(optics.texts(label)[row]) if label in optics else None

    found = tuple(
        Optics(
            optics.texts("rlnOpticsGroupName")[row] if "rlnOpticsGroupName" in optics else f"opticsGroup{row + 1}",
            value("rlnVoltage", row),
            value("rlnSphericalAberration", row),
            value("rlnAmplitudeContrast", row),
            value("rlnImagePixelSize", row) or value("rlnMicrographPixelSize", row),
            value("rlnMicrographOriginalPixelSize", row) or value("rlnMicrographPixelSize", row),
            bool(value("rlnCtfDataAreCtfPremultiplied", row)),
        )
        for row in range(len(numbers))
    )
    return np.array([places[number] for number in used], dtype=np.int64), found


def _optics_of_rows(table: Table) -> tuple[NDArray[np.int64], tuple[Optics, ...]]:
    """Return the groups of RELION 3.0, which repeats optics in each row: the pixel size is that of the detector."""
    labels = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
    columns = [table.floats(label) if label in table else np.full(len(table), np.nan) for label in labels]
    pixel = np.full(len(table), np.nan)
    if "rlnDetectorPixelSize" in table and "rlnMagnification" in table:
        pixel = 1e4 * table.floats("rlnDetectorPixelSize") / table.floats("rlnMagnification")
    return _number_groups([*columns, pixel], _optics_of)


def _number_groups(
    columns: Sequence[NDArray[Any]], make: Callable[[NDArray[Any]], Optics]
) -> tuple[NDArray[np.int64], tuple[Optics, ...]]:
    """Return the groups of rows with the same values, numbered in the order in which they first occur."""
    values = np.nan_to_num(np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1), nan=_UNSET)  # (n, k)
    if not len(values):
        return np.zeros(0, dtype=np.int64), ()
    kinds, first, groups = np.unique(values, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.argsort(order)
    named = [make(kinds[place]) for place in order]
    optics = tuple(Optics(one.name or f"opticsGroup{number}", *_rest(one)) for number, one in enumerate(named, 1))
    return rank[groups.reshape(-1)], optics


def _rest(one: Optics) -> tuple[Any, ...]:
    return (one.voltage_kv, one.cs_mm, one.amplitude_contrast, one.pixel_size_ang, one.raw_pixel_ang, one.premultiplied)


def _optics_of(row: NDArray[Any]) -> Optics:
    """Return optics of values: voltage, spherical aberration, amplitude contrast, pixel size, and perhaps that of the movie."""
    values = [None if value == _UNSET else float(value) for value in row.tolist()]
    voltage_kv, cs_mm, contrast, pixel_ang, *raw = values
    return Optics("", voltage_kv, cs_mm, contrast, pixel_ang, raw[0] if raw else None)


def _settle_ctf(numbers: Numbers) -> Numbers:
    if not all(name in numbers for name in CTF_NUMBERS[:3]):
        return {name: values for name, values in numbers.items() if name not in CTF_NUMBERS}
    return order_defocus(numbers)


def _read_cs(path: Path) -> ParticleFile:
    rows = read_cs_job(path)
    known = rows.dtype.names or ()
    if "blob/path" not in known or "blob/idx" not in known:
        raise FileFormatError(path, "no columns blob/path and blob/idx: it names no images of particles")
    numbers: Numbers = {}
    if all(name in known for name in _CS_CTF):
        numbers = {name: rows[column].astype(np.float64) for name, column in zip(CTF_NUMBERS, _CS_CTF, strict=True)}
        numbers["astigmatism_angle_deg"] = np.rad2deg(numbers["astigmatism_angle_deg"])
        numbers["phase_shift_deg"] = np.rad2deg(numbers["phase_shift_deg"])
    if "location/center_x_frac" in known and "location/micrograph_shape" in known:
        numbers["y_px"], numbers["x_px"] = cs_positions(rows).T
    numbers |= _cs_poses(rows, known)
    columns = [rows[name] if name in known else np.full(len(rows), np.nan) for name in _CS_OPTICS]
    groups, optics = _number_groups(columns, lambda row: _optics_of(row[1:]))
    signs = np.unique(np.sign(rows["blob/sign"])) if "blob/sign" in known else np.zeros(0)
    if len(signs) > 1:
        raise FileFormatError(path, "some particles are bright and some are dark (blob/sign); export them separately")
    return ParticleFile(
        stacks=texts_of(rows["blob/path"]),
        slices=rows["blob/idx"].astype(np.int64),
        micrographs=texts_of(rows["location/micrograph_path"]) if "location/micrograph_path" in known else [""] * len(rows),
        groups=groups,
        optics=optics,
        numbers=_settle_ctf(numbers),
        bright=bool(signs[0] > 0) if len(signs) else None,
    )


def _cs_poses(rows: NDArray[Any], known: tuple[str, ...]) -> Numbers:
    """Return the poses of a refinement, else those of a 2D classification; shifts are in pixels of a scale of their own."""
    kind = next((one for one in ("alignments3D", "alignments2D") if f"{one}/pose" in known), None)
    if kind is None:
        return {}
    numbers: Numbers = {}
    pose = rows[f"{kind}/pose"].astype(np.float64)
    if kind == "alignments3D":
        numbers |= dict(zip(("rot_deg", "tilt_deg", "psi_deg"), angles_of_vectors(pose).T, strict=True))
    else:
        numbers["psi_deg"] = np.rad2deg(pose)
    scale = next((rows[name] for name in (f"{kind}/psize_A", "blob/psize_A") if name in known), None)
    if f"{kind}/shift" in known and scale is not None:
        shift = -rows[f"{kind}/shift"].astype(np.float64) * scale.astype(np.float64)[:, None]  # (n, 2): x, y
        numbers["shift_x_ang"], numbers["shift_y_ang"] = shift.T
    if f"{kind}/split" in known:
        numbers["half"] = rows[f"{kind}/split"].astype(np.float64)
    if f"{kind}/class" in known:
        numbers["class_id"] = rows[f"{kind}/class"].astype(np.float64) + 1
    return numbers


def angles_of_vectors(vectors_rad: NDArray[Any]) -> NDArray[np.float64]:
    """Return RELION's rot, tilt and psi ``(n, 3)`` of cryoSPARC's rotation vectors ``(n, 3)``, from view to volume."""
    if not len(vectors_rad):
        return np.zeros((0, 3))
    matrix = Rotation.from_rotvec(vectors_rad).as_matrix()  # (n, 3, 3): Rz(rot) Ry(tilt) Rz(psi)
    rot = np.arctan2(matrix[:, 1, 2], matrix[:, 0, 2])  # any angle is right where tilt is 0: psi follows from what it leaves
    tilt = np.arctan2(np.hypot(matrix[:, 0, 2], matrix[:, 1, 2]), matrix[:, 2, 2])
    left = np.cos(rot)[:, None] * matrix[:, 1] - np.sin(rot)[:, None] * matrix[:, 0]  # (n, 3): middle row of Ry(tilt) Rz(psi)
    angles: NDArray[np.float64] = np.degrees(np.stack([rot, tilt, np.arctan2(left[:, 0], left[:, 1])], axis=1))
    return angles


def vectors_of_angles(angles_deg: NDArray[Any]) -> NDArray[np.float64]:
    """Return cryoSPARC's rotation vectors ``(n, 3)`` of RELION's rot, tilt and psi ``(n, 3)``."""
    if not len(angles_deg):
        return np.zeros((0, 3))
    return np.asarray(Rotation.from_euler("ZYZ", angles_deg, degrees=True).as_rotvec(), dtype=np.float64)


def _read_scipion(path: Path) -> ParticleFile:
    items = read_scipion_set(path)
    index, stacks = items.numbers("_index"), items.texts("_filename")
    if index is None or stacks is None:
        raise FileFormatError(path, "no columns _index and _filename: not a set of particles of Scipion")
    found = {name: items.numbers(column) for name, column in _SCIPION.items()}
    numbers = {name: values for name, values in found.items() if values is not None}
    if "phase_shift_deg" in numbers:
        numbers["phase_shift_deg"] = np.nan_to_num(numbers["phase_shift_deg"])
    unset = np.full(items.count, np.nan)
    columns = [unset if (column := items.numbers(name)) is None else column for name in _SCIPION_OPTICS]
    groups, optics = _number_groups(columns, _optics_of)
    return ParticleFile(
        stacks=stacks,
        slices=np.maximum(index.astype(np.int64) - 1, -1) + (index == 0),  # 0: the only image of a file
        micrographs=items.texts("_coordinate._micName", "_micName", "_micId") or [""] * items.count,
        groups=groups,
        optics=optics,
        numbers=_settle_ctf(numbers),
    )


def find_stack(folder: Path, name: str) -> Path | None:
    """Return the file that a program means by a path within a project of its own; None where it is not below the folder.

    The path is tried as it is, then without its first folders one after the other: people copy parts of projects. cryoSPARC
    calls a stack ``.mrc`` and RELION ``.mrcs``: a stack whose ending was changed is found, too. Nothing outside the folder is.
    """
    parts = [part for part in name.replace("\\", "/").removeprefix(">").split("/") if part not in ("", ".")]
    if ".." in parts:
        return None
    for first in range(len(parts)):
        path = folder.joinpath(*parts[first:])
        other = {".mrc": ".mrcs", ".mrcs": ".mrc"}.get(path.suffix.lower())
        for one in (path, path.with_suffix(other)) if other is not None else (path,):
            if one.is_file():
                return one
    return None
