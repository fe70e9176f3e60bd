"""Lists of particles for other programs: STAR of RELION 3.1 and later, and cryoSPARC's ``.cs`` with the group that it imports.

What is written is read again by `particle_files` as the same particles.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from icestream.files import publish_text
from icestream.io.cryosparc import write_cs
from icestream.io.ctf_files import CTF_NUMBERS
from icestream.io.particle_files import Optics, ParticleFile, vectors_of_angles
from icestream.io.star import Table

_STAR = {
    "rlnCoordinateX": "x_px",
    "rlnCoordinateY": "y_px",
    "rlnAutopickFigureOfMerit": "score",
    "rlnDefocusU": "defocus_u_ang",
    "rlnDefocusV": "defocus_v_ang",
    "rlnDefocusAngle": "astigmatism_angle_deg",
    "rlnPhaseShift": "phase_shift_deg",
    "rlnAngleRot": "rot_deg",
    "rlnAngleTilt": "tilt_deg",
    "rlnAnglePsi": "psi_deg",
}
_ANGLES = ("rot_deg", "tilt_deg", "psi_deg")
_VERSION = "v4.4.1"
"""Of the form of a group; cryoSPARC imports groups of this version and later ones."""


@dataclass(frozen=True)
class Boxes:
    """What a list says of the images that `ParticleFile` does not.

    Attributes
    ----------
    box_px
        Side of the images.
    shapes
        Height and width of the micrograph of each particle, ``(n, 2)``; unset: positions are left out of ``.cs`` files.
    """

    box_px: int
    shapes: NDArray[np.int64] | None = None


def particle_star_tables(found: ParticleFile, *, boxes: Boxes) -> dict[str, Table]:
    """Return the tables ``optics`` and ``particles`` of RELION 3.1 and later.

    Raises
    ------
    ValueError
        An optics group does not say its pixel size, voltage, spherical aberration or amplitude contrast.
    """
    optics: dict[str, list[str]] = {}
    for number, one in enumerate(found.optics, 1):
        values = {
            "rlnOpticsGroupName": one.name,
            "rlnOpticsGroup": number,
            "rlnMicrographOriginalPixelSize": one.raw_pixel_ang or one.pixel_size_ang,
            "rlnVoltage": one.voltage_kv,
            "rlnSphericalAberration": one.cs_mm,
            "rlnAmplitudeContrast": one.amplitude_contrast,
            "rlnImagePixelSize": one.pixel_size_ang,
            "rlnImageSize": boxes.box_px,
            "rlnImageDimensionality": 2,
            "rlnCtfDataAreCtfPremultiplied": int(one.premultiplied),
        }
        unset = [label for label, value in values.items() if value is None]
        if unset:
            raise ValueError(f"optics group {one.name} has no {', '.join(unset)}")
        for label, value in values.items():
            optics.setdefault(label, []).append(value if isinstance(value, str) else f"{value:.9g}")
    columns = {
        "rlnImageName": [f"{int(place) + 1:06d}@{stack}" for place, stack in zip(found.slices, found.stacks, strict=True)],
        "rlnMicrographName": found.micrographs,
        "rlnOpticsGroup": [str(group + 1) for group in found.groups.tolist()],
    }
    numbers = found.numbers
    columns |= {label: _decimals(numbers[name]) for label, name in _STAR.items() if name in numbers}
    for axis in ("y", "x"):
        if f"shift_{axis}_ang" in numbers:
            columns[f"rlnOrigin{axis.upper()}Angst"] = _decimals(-numbers[f"shift_{axis}_ang"])
    for label, name, first in (("rlnRandomSubset", "half", 1), ("rlnClassNumber", "class_id", 0)):
        if name in numbers:
            columns[label] = [str(round(value) + first) for value in numbers[name].tolist()]
    return {"optics": Table(optics), "particles": Table(columns)}


def _decimals(values: NDArray[np.float64]) -> list[str]:
    return [f"{value:.6f}" for value in values.tolist()]


def cs_particle_columns(found: ParticleFile, *, boxes: Boxes) -> list[tuple[str, NDArray[Any]]]:
    """Return the columns of a ``.cs`` file of particles, those of exposures and optics groups with them."""
    n, numbers = len(found.stacks), found.numbers
    optics = [found.optics[group] for group in found.groups.tolist()]
    pixel = _column([one.pixel_size_ang for one in optics])
    columns: list[tuple[str, NDArray[Any]]] = [
        ("uid", uids(f"{stack} {place}" for stack, place in zip(found.stacks, found.slices.tolist(), strict=True))),
        ("blob/path", _texts(found.stacks)),
        ("blob/idx", found.slices.astype(np.uint32)),
        ("blob/shape", np.full((n, 2), boxes.box_px, dtype=np.uint32)),
        ("blob/psize_A", pixel),
        ("blob/sign", np.full(n, -1.0 if found.bright is False else 1.0, dtype=np.float32)),
        ("blob/import_sig", np.zeros(n, dtype=np.uint64)),
    ]
    columns += cs_ctf_columns(numbers, n, found.groups, optics_of=optics)
    if all(name in numbers for name in _ANGLES):
        columns += _cs_alignments(found, pixel)
    if boxes.shapes is not None and "y_px" in numbers:
        columns += _cs_locations(found, boxes.shapes, optics)
    return columns


def cs_ctf_columns(
    numbers: Mapping[str, NDArray[np.float64]], n: int, groups: NDArray[np.int64], *, optics_of: list[Any]
) -> list[tuple[str, NDArray[Any]]]:
    """Return the columns of the CTF, of particles or exposures, with angles in radians; nothing where there is no CTF."""
    if not all(name in numbers for name in CTF_NUMBERS[:3]):
        return []
    phase = numbers.get("phase_shift_deg", np.zeros(n))
    return [
        ("ctf/type", np.full(n, b"imported")),
        ("ctf/exp_group_id", groups.astype(np.uint32)),
        ("ctf/accel_kv", _column([one.voltage_kv for one in optics_of])),
        ("ctf/cs_mm", _column([one.cs_mm for one in optics_of])),
        ("ctf/amp_contrast", _column([one.amplitude_contrast for one in optics_of])),
        ("ctf/df1_A", numbers["defocus_u_ang"].astype(np.float32)),
        ("ctf/df2_A", numbers["defocus_v_ang"].astype(np.float32)),
        ("ctf/df_angle_rad", np.deg2rad(numbers["astigmatism_angle_deg"]).astype(np.float32)),
        ("ctf/phase_shift_rad", np.deg2rad(phase).astype(np.float32)),
        ("ctf/scale", np.ones(n, dtype=np.float32)),
        ("ctf/scale_const", np.zeros(n, dtype=np.float32)),
        ("ctf/shift_A", np.zeros((n, 2), dtype=np.float32)),
        ("ctf/tilt_A", np.zeros((n, 2), dtype=np.float32)),
        ("ctf/trefoil_A", np.zeros((n, 2), dtype=np.float32)),
        ("ctf/tetra_A", np.zeros((n, 4), dtype=np.float32)),
        ("ctf/anisomag", np.zeros((n, 4), dtype=np.float32)),
        ("ctf/bfactor", np.zeros(n, dtype=np.float32)),
    ]


def _cs_alignments(found: ParticleFile, pixel: NDArray[np.float32]) -> list[tuple[str, NDArray[Any]]]:
    numbers, n = found.numbers, len(found.stacks)
    angles = np.stack([numbers[name] for name in _ANGLES], axis=1)
    shifts = np.stack([numbers.get(f"shift_{axis}_ang", np.zeros(n)) for axis in ("x", "y")], axis=1)
    zero, one = np.zeros(n, dtype=np.float32), np.ones(n, dtype=np.float32)
    return [
        ("alignments3D/split", np.nan_to_num(numbers.get("half", np.arange(n) % 2)).astype(np.uint32)),
        ("alignments3D/shift", (-shifts / pixel[:, None]).astype(np.float32)),
        ("alignments3D/pose", vectors_of_angles(angles).astype(np.float32)),
        ("alignments3D/psize_A", pixel),
        *((f"alignments3D/{name}", zero) for name in ("error", "error_min", "resid_pow", "slice_pow", "image_pow", "cross_cor")),
        *((f"alignments3D/{name}", one) for name in ("alpha", "alpha_min", "weight")),
        ("alignments3D/pose_ess", zero),
        ("alignments3D/shift_ess", zero),
        ("alignments3D/class_posterior", one),
        ("alignments3D/class", (np.nan_to_num(numbers.get("class_id", np.ones(n)), nan=1.0) - 1).astype(np.uint32)),
        ("alignments3D/class_ess", one),
    ]


def _cs_locations(found: ParticleFile, shapes: NDArray[np.int64], optics: list[Any]) -> list[tuple[str, NDArray[Any]]]:
    return [
        ("location/micrograph_uid", uids(found.micrographs)),
        ("location/exp_group_id", found.groups.astype(np.uint32)),
        ("location/micrograph_path", _texts(found.micrographs)),
        ("location/micrograph_shape", shapes.astype(np.uint32)),
        ("location/micrograph_psize_A", _column([one.raw_pixel_ang or one.pixel_size_ang for one in optics])),
        ("location/center_x_frac", ((found.numbers["x_px"] + 0.5) / shapes[:, 1]).astype(np.float32)),
        ("location/center_y_frac", ((found.numbers["y_px"] + 0.5) / shapes[:, 0]).astype(np.float32)),
    ]


def uids(names: Any) -> NDArray[np.uint64]:
    """Return numbers that are the same for the same names, and another for others: half of a hash."""
    digests = [hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in names]
    return np.array([int.from_bytes(one, "little") for one in digests], dtype=np.uint64)


def _column(values: list[float | None]) -> NDArray[np.float32]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float32)


def _texts(values: list[str]) -> NDArray[Any]:
    return np.array(values, dtype=np.str_)


def cs_exposure_columns(
    image: str,
    *,
    shape: tuple[int, int],
    optics: Optics,
    numbers: Mapping[str, NDArray[np.float64]],
    dose_e_per_ang2: float | None,
    beam_shift_yx: tuple[float, float],
) -> list[tuple[str, NDArray[Any]]]:
    """Return the columns of one micrograph for a ``.cs`` file of exposures.

    Parameters
    ----------
    image
        The micrograph, relative to the file.
    optics
        Its pixel size is ``raw_pixel_ang``.
    numbers
        The CTF, and ``resolution_ang``, ``(1,)`` each; empty: none is known.
    beam_shift_yx
        As the acquisition software states it; not a number where it does not.
    """
    one = np.ones(1, dtype=np.float32)
    known = bool(np.isfinite(beam_shift_yx).all())
    columns: list[tuple[str, NDArray[Any]]] = [
        ("uid", uids([image])),
        ("micrograph_blob/path", _texts([image])),
        ("micrograph_blob/idx", np.zeros(1, dtype=np.uint32)),
        ("micrograph_blob/shape", np.array([shape], dtype=np.uint32)),
        ("micrograph_blob/psize_A", _column([optics.raw_pixel_ang])),
        ("micrograph_blob/format", np.full(1, b"MRC/1")),
        ("micrograph_blob/is_background_subtracted", np.zeros(1, dtype=np.uint32)),
        ("mscope_params/accel_kv", _column([optics.voltage_kv])),
        ("mscope_params/cs_mm", _column([optics.cs_mm])),
        ("mscope_params/total_dose_e_per_A2", _column([dose_e_per_ang2 or 0.0])),
        ("mscope_params/exp_group_id", np.zeros(1, dtype=np.uint32)),
        ("mscope_params/phase_plate", np.zeros(1, dtype=np.uint32)),
        ("mscope_params/neg_pixels", np.zeros(1, dtype=np.uint32)),
        ("mscope_params/beam_shift", np.array([beam_shift_yx[::-1]], dtype=np.float32)),
        ("mscope_params/beam_shift_known", np.full(1, known, dtype=np.uint32)),
    ]
    if numbers:
        columns += cs_ctf_columns(numbers, 1, np.zeros(1, dtype=np.int64), optics_of=[optics])
        columns.append(("ctf_stats/ctf_fit_to_A", numbers["resolution_ang"].astype(np.float32) * one))
    return columns


def write_cs_group(folder: Path, name: str, kind: str, columns: list[tuple[str, NDArray[Any]]]) -> Path:
    """Write ``NAME.cs`` and the group ``NAME.csg`` that cryoSPARC imports (*Import Result Group*); return the latter."""
    write_cs(folder / f"{name}.cs", columns)
    return publish_cs_group(folder, name, kind, [column for column, _ in columns], count=len(columns[0][1]))


def publish_cs_group(folder: Path, name: str, kind: str, columns: Sequence[str], *, count: int) -> Path:
    """Publish ``NAME.csg``, which says what ``NAME.cs`` beside it has.

    Parameters
    ----------
    kind
        What the rows are: ``particle`` or ``exposure``.
    """
    slots = dict.fromkeys(column.partition("/")[0] for column in columns if "/" in column)
    title = f"{name.capitalize()} from icestream"
    group = {
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "group": {"description": title, "name": name, "title": title, "type": kind},
        "results": {slot: {"metafile": f">{name}.cs", "num_items": count, "type": f"{kind}.{slot}"} for slot in slots},
        "version": _VERSION,
    }
    path = folder / f"{name}.csg"
    publish_text(path, yaml.safe_dump(group, sort_keys=False))
    return path
