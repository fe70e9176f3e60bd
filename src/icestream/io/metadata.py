"""What the acquisition software says about one exposure, from the movie's header and the sidecar beside it."""

import re
from pathlib import Path

from icestream.io.epu import read_epu_xml
from icestream.io.mdoc import read_mdoc
from icestream.io.raw import COMPRESSED_SUFFIXES
from icestream.records import Acquisition, ExposureMetadata

_EPU_ENDING = re.compile(r"_(?:fractions|eer|frames?|movie)$", re.IGNORECASE)


def find_sidecar(path: Path) -> Path | None:
    """Return the sidecar of a movie in the same folder, or None while there is none.

    SerialEM: ``name.tif.mdoc`` or ``name.mdoc``. EPU: ``FoilHole_…_Fractions.mrc``, ``FoilHole_…_EER.eer`` and the like belong
    to ``FoilHole_….xml``; failing that, ``FoilHole_…_Fractions.xml`` is taken.
    """
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED_SUFFIXES else path
    stem = _EPU_ENDING.sub("", plain.stem)
    names = [f"{plain.name}.mdoc", f"{plain.stem}.mdoc", f"{stem}.xml", f"{plain.stem}.xml"]
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def read_sidecar(sidecar: Path, movie: Path) -> tuple[ExposureMetadata, Acquisition]:
    """Read the EPU XML or SerialEM mdoc of ``movie``, adding grid square and foil hole from its path.

    Raises
    ------
    FileFormatError
        The sidecar is damaged or of another kind.
    """
    if sidecar.suffix.lower() == ".mdoc":
        plain = movie.with_suffix("") if movie.suffix.lower() in COMPRESSED_SUFFIXES else movie
        metadata, acquisition = read_mdoc(sidecar, movie_name=plain.name)
    else:
        metadata, acquisition = read_epu_xml(sidecar)
    return place_exposure(metadata, movie), acquisition


def place_exposure(metadata: ExposureMetadata, movie: Path) -> ExposureMetadata:
    """Add the grid square and the foil hole that EPU's folder and file names tell."""
    hole = re.match(r"FoilHole_(\d+)_", movie.name)
    square = next((found[1] for part in reversed(movie.parent.parts) if (found := re.fullmatch(r"GridSquare_(\d+)", part))), None)
    known = {"grid_square": square, "foil_hole": hole[1] if hole else None}
    return metadata.model_copy(update={name: value for name, value in known.items() if value is not None})


def merge_metadata(first: ExposureMetadata | None, second: ExposureMetadata | None) -> ExposureMetadata:
    """Return the values of ``first``, and those of ``second`` where ``first`` has none."""
    return ExposureMetadata(**{**_known(second), **_known(first)})


def merge_acquisition(first: Acquisition | None, second: Acquisition | None) -> Acquisition:
    """Return the values of ``first``, and those of ``second`` where ``first`` has none."""
    return Acquisition(**{**_known(second), **_known(first)})


def _known(record: ExposureMetadata | Acquisition | None) -> dict[str, float | str]:
    return record.model_dump(exclude_none=True) if record is not None else {}
