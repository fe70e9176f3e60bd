"""What the acquisition software says about one exposure, from the image's header and the sidecar beside it."""

import re
from pathlib import Path

from icestream.errors import FileFormatError, OtherKind, SourceGone
from icestream.io.epu import read_epu_xml
from icestream.io.mdoc import read_mdoc
from icestream.io.raw import COMPRESSED_SUFFIXES
from icestream.io.said import Frames, Said, agree
from icestream.io.xmltree import parse_xml, read_small
from icestream.records import Acquisition, ExposureMetadata

SIDECAR_SUFFIXES = (".mdoc", ".xml")
_EPU_ENDING = re.compile(r"_(?:fractions|eer|frames?|movie)$", re.IGNORECASE)
_IMAGE_SUFFIXES = (".mrc", ".mrcs", ".st", ".map", ".tif", ".tiff", ".eer", ".png", ".jpg", ".jpeg")


def find_sidecar(path: Path) -> Path | None:
    """Return the sidecar of an image in the same folder, or None while there is none.

    SerialEM: ``name.tif.mdoc`` or ``name.mdoc``. EPU: ``FoilHole_…_Fractions.mrc``, ``FoilHole_…_EER.eer`` and the like belong
    to ``FoilHole_….xml``; failing that, ``FoilHole_…_Fractions.xml`` is taken.
    """
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED_SUFFIXES else path
    stem = _EPU_ENDING.sub("", plain.stem)
    names = [f"{plain.name}.mdoc", f"{plain.stem}.mdoc", f"{stem}.xml", f"{plain.stem}.xml"]
    return next((path.with_name(name) for name in names if _is_file(path.with_name(name))), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # its name is too long, or its folder may not be entered
        return False


def exposure_stem(name: str) -> str:
    """Return what the names of an image and of all its possible sidecars have in common."""
    plain = name[: -len(".mdoc")] if name.lower().endswith(".mdoc") else name[: -len(".xml")] if _is_xml(name) else name
    for endings in (COMPRESSED_SUFFIXES, _IMAGE_SUFFIXES):
        plain = next((plain[: -len(ending)] for ending in endings if plain.lower().endswith(ending)), plain)
    return _EPU_ENDING.sub("", plain)


def _is_xml(name: str) -> bool:
    return name.lower().endswith(".xml")


def is_well_formed(sidecar: Path) -> bool:
    """Tell whether a sidecar is seen to be whole: XML ends with its root, which no part of an mdoc shows."""
    if not _is_xml(sidecar.name):
        return False
    try:
        parse_xml(sidecar, read_small(sidecar))
    except (FileFormatError, SourceGone, OSError):
        return False
    return True


def read_sidecar(sidecar: Path, image: Path) -> Said:
    """Read the EPU XML or SerialEM mdoc of ``image``.

    Raises
    ------
    FileFormatError
        The sidecar is damaged or of another kind.
    """
    if not sidecar.name.lower().endswith(".mdoc"):
        return read_epu_xml(sidecar)
    plain = image.with_suffix("") if image.suffix.lower() in COMPRESSED_SUFFIXES else image
    return read_mdoc(sidecar, movie_name=plain.name)


def read_beside(
    image: Path, in_header: Said | None, frames: Frames | None, *, pixel_size_ang: float | None = None
) -> tuple[ExposureMetadata, Acquisition]:
    """Return what header and sidecar of an image say, with grid square and foil hole from its path.

    What software of the microscope wrote into the header takes precedence, then the sidecar, then ``pixel_size_ang``, that of
    a plain header; there, exactly 1 Å is what programs write that do not know it. The note of the metadata tells which sidecar
    could not be read, and what was contradicted (`icestream.io.said`).

    Raises
    ------
    OtherKind
        The sidecar says that the image is a montage.
    """
    sidecar = find_sidecar(image)
    said = [] if in_header is None else [in_header]
    if sidecar is not None:
        try:
            said.append(read_sidecar(sidecar, image))
        except FileFormatError as error:
            said.append(Said(sidecar.name, notes=(f"{sidecar.name} was not read: {error.reason}",)))
        except (SourceGone, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            said.append(Said(sidecar.name, notes=(f"{sidecar.name} was not read: {reason}",)))
    for one in said:
        if one.other_kind is not None:
            raise OtherKind(image, f"is {one.other_kind}, as {one.origin} says")
    has_size = in_header is not None and in_header.acquisition.pixel_size_ang is not None
    if pixel_size_ang is not None and pixel_size_ang != 1.0 and not has_size:
        said.append(Said("the image's header", acquisition=Acquisition(pixel_size_ang=pixel_size_ang)))
    metadata, acquisition = agree(said, frames)
    return place_exposure(metadata, image), acquisition


def place_exposure(metadata: ExposureMetadata, movie: Path) -> ExposureMetadata:
    """Add the grid square and the foil hole that EPU's folder and file names tell."""
    hole = re.match(r"FoilHole_(\d+)_", movie.name)
    square = next((found[1] for part in reversed(movie.parent.parts) if (found := re.fullmatch(r"GridSquare_(\d+)", part))), None)
    known = {"grid_square": square, "foil_hole": hole[1] if hole else None}
    return metadata.model_copy(update={name: value for name, value in known.items() if value is not None})
