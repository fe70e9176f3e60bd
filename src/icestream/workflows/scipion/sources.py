"""What an import protocol of Scipion says about folders, files and the microscope."""

import glob
import math
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from icestream.workflows.scipion.convert import AbsentError, Reader, UntranslatableError
from icestream.workflows.scipion.parse import DynamicField

ACQUISITION = {
    "voltage": "--voltage",
    "sphericalAberration": "--cs",
    "amplitudeContrast": "--amplitude-contrast",
    "samplingRate": "--pixel-size",
    "dosePerFrame": "--dose-per-frame",
    "doseInitial": "--pre-exposure",
}
"""Values of the microscope have no place in a workflow; they are options of ``icestream new``."""

_MAY_BE_ZERO = {"doseInitial", "sphericalAberration", "amplitudeContrast"}

FOLDERS = {"ProtImportMovies": "movies", "ProtImportMicrographs": "micrographs"}

IMPORTED = {"import_picks": "picks", "import_averages": "averages", "import_volume": "volumes"}
"""Steps that read files of other programs, and the folder of the session that each looks into."""

SOURCES = frozenset({*FOLDERS, "ProtImportAverages", "ProtImportVolumes"})
"""Protocols that become sources."""

HANDLED = frozenset(
    {*ACQUISITION, "filesPath", "filesPattern", "gainFile", "samplingRateMode", "scannedPixelSize", "magnification"}
    | {"useRegexps", "numberOfIndividualFrames", "stackFrames", "writeMoviesInProject", "movieSuffix", "deleteFrames"}
)
"""Parameters of an import that are read here, or that only matter together with one that is told as lost."""

_WILD = re.compile(r"[*?\[#]")
_VARIABLE = re.compile(r"%\(\w+\)s")


@dataclass(frozen=True)
class ImportValues:
    """The files to take, the options of ``icestream new`` (None is to be filled in), and the gain reference."""

    pattern: str | None
    folder: str | None
    options: dict[str, str | None]
    has_gain: bool
    gain: str | None
    pixel_ang: float | None
    notes: tuple[str, ...] = field(default_factory=tuple)


def read_import(reader: Reader) -> ImportValues:
    """Read the files and the acquisition values of an import protocol."""
    notes: list[str] = []
    folder, pattern = split_pattern(_text(reader, "filesPath"), _text(reader, "filesPattern"))
    pixel_ang = _pixel_size_ang(reader, notes)
    options = _options(reader, pixel_ang, notes)
    gain = _text(reader, "gainFile")
    has_gain = gain is not None or isinstance(reader.protocol.values.get("gainFile"), DynamicField)
    variables = sorted({name for text in (folder, pattern, gain) for name in _VARIABLE.findall(text or "")})
    if variables:
        notes.append(f"environment variables are kept as they are written: {', '.join(variables)}; put in what they stand for")
    if "{" in (pattern or ""):
        notes.append(f"pattern {pattern} has braces, which stand for themselves here")
    return ImportValues(pattern, folder, options, has_gain, gain, pixel_ang, tuple(notes))


def _options(reader: Reader, pixel_ang: float | None, notes: list[str]) -> dict[str, str | None]:
    options: dict[str, str | None] = {}
    for parameter, option in ACQUISITION.items():
        asked = reader.protocol.values.get(parameter)
        number = pixel_ang if parameter == "samplingRate" else _number(reader, parameter, notes)
        if number is not None and (number > 0 or (number == 0 and parameter in _MAY_BE_ZERO)):
            options[option] = f"{number:g}"
        elif number is not None:
            notes.append(f"{parameter} is {number:g}, which is not a possible value; {option} is left out")
        elif isinstance(asked, DynamicField) and asked.default is None:
            options[option] = None
    return options


def split_pattern(folder: str | None, pattern: str | None) -> tuple[str | None, str | None]:
    """Return the folder without wildcards and the glob below it; each ``#`` of Scipion stands for one digit."""
    parts = list(PurePosixPath(folder).parts) if folder else []
    wild = next((number for number, part in enumerate(parts) if _WILD.search(part)), len(parts))
    if not pattern and wild == len(parts) and parts and PurePosixPath(parts[-1]).suffix:
        wild -= 1  # without a pattern the path is that of a file
    fixed = str(PurePosixPath(*parts[:wild])) if parts[:wild] else None
    below = [*parts[wild:], *([pattern.lstrip("/")] if pattern else [])]
    return fixed, "/".join(below).replace("#", "[0-9]") if below else None


def gain_pattern(path: str | None) -> str | None:
    """Return the glob that finds just this file; None where the name is not known yet."""
    name = PurePosixPath(path).name if path else ""
    return glob.escape(name) if PurePosixPath(name).suffix and "%(" not in name else None


def _text(reader: Reader, name: str) -> str | None:
    try:
        return reader.text(name).strip() or None
    except (AbsentError, UntranslatableError):
        return None


def _number(reader: Reader, name: str, notes: list[str]) -> float | None:
    try:
        return reader.number(name)
    except AbsentError:
        return None
    except UntranslatableError as error:
        notes.append(str(error))
        return None


def _pixel_size_ang(reader: Reader, notes: list[str]) -> float | None:
    """Return the pixel size as given, or that of a scanner in µm over the magnification."""
    if _number(reader, "samplingRateMode", notes) != 1:
        pixel_ang = _number(reader, "samplingRate", notes)
    else:
        scanned_um, magnification = _number(reader, "scannedPixelSize", notes), _number(reader, "magnification", notes)
        pixel_ang = scanned_um / magnification * 1e4 if scanned_um and magnification else None
    if pixel_ang is not None and not 0 < pixel_ang < math.inf:
        notes.append(f"the pixel size is {pixel_ang:g} Å; it must be a finite number above 0")
        return None
    return pixel_ang
