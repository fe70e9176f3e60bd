"""SerialEM's mdoc files: ``key = value`` lines under ``[FrameSet = n]`` or ``[ZValue = n]`` headings."""

import re
from datetime import datetime
from pathlib import Path, PureWindowsPath

from icestream.errors import FileFormatError
from icestream.io.xmltree import finite, positive, read_small
from icestream.records import Acquisition, ExposureMetadata

_HEADING = re.compile(r"\[\s*(\w+)\s*=\s*(.*?)\s*\]$")
_TITLE = re.compile(r"SerialEM:\s*(?:Digitized (?:by|on) )?(.*?)\s*\d{2}-\w{3}-\d{2,4}\s")
Section = dict[str, str]


def parse_mdoc(path: Path) -> tuple[Section, list[Section]]:
    """Return the values before the first heading, and those under each FrameSet or ZValue heading.

    Raises
    ------
    FileFormatError
        No line of the file is ``key = value``.
    """
    general: Section = {}
    sections: list[Section] = []
    current = general
    for line in read_small(path).decode("utf-8", errors="replace").splitlines():
        heading = _HEADING.match(line.strip())
        if heading is not None and heading[1] in ("FrameSet", "ZValue"):
            current = {}
            sections.append(current)
        elif heading is not None and heading[1] == "T":
            general.setdefault("T", heading[2])
        elif heading is not None:
            current = {}  # a montage or another part that describes no exposure
        elif "=" in line:
            key, _, value = line.partition("=")
            current.setdefault(key.strip(), value.strip())
    if not general and not any(sections):
        raise FileFormatError(path, "not a SerialEM mdoc: no 'key = value' line")
    return general, sections


def read_mdoc(path: Path, *, movie_name: str | None = None) -> tuple[ExposureMetadata, Acquisition]:
    """Return what SerialEM wrote about one exposure; positive applied defocus is underfocus.

    Parameters
    ----------
    path
        The mdoc.
    movie_name
        The movie's file name, to find its section in an mdoc of many; without it (or without a match) the first is taken.

    Notes
    -----
    The pixel size is taken only where the binning is 1 or less: with on-the-fly binned views (Direct Electron) SerialEM states
    the pixel of the view, not of the saved frames.
    """
    general, sections = parse_mdoc(path)
    own = [part for part in sections if movie_name and PureWindowsPath(part.get("SubFramePath", "")).name == movie_name]
    values = {**general, **(own or sections or [{}])[0]}
    stage = [finite(part) for part in values.get("StagePosition", "").split()] + [None, None]
    defocus = finite(values.get("TargetDefocus", values.get("Defocus")))
    title = _TITLE.search(values.get("T", "") + " ")
    metadata = ExposureMetadata(
        acquired_at=_date(values.get("DateTime", "")),
        stage_y_um=stage[1],
        stage_x_um=stage[0],
        stage_z_um=finite(values.get("StageZ")),
        tilt_deg=finite(values.get("TiltAngle")),
        applied_defocus_um=None if defocus is None else -defocus,
        exposure_s=positive(finite(values.get("ExposureTime"))),
        total_dose_e_per_ang2=positive(finite(values.get("ExposureDose"))),
        microscope=title[1].strip() or None if title else None,
    )
    binning = finite(values.get("Binning"))
    acquisition = Acquisition(
        voltage_kv=positive(finite(values.get("Voltage"))),
        pixel_size_ang=positive(finite(values.get("PixelSpacing"))) if binning is not None and binning <= 1 else None,
        dose_per_frame_e_per_ang2=_dose_per_frame(values.get("FrameDosesAndNumber", "")),
    )
    return metadata, acquisition


def _dose_per_frame(text: str) -> float | None:
    """Return the dose of a frame from ``dose number [dose number …]`` where all frames have the same."""
    numbers = [finite(part) for part in text.split()]
    doses = set(numbers[0::2])
    return positive(doses.pop()) if len(doses) == 1 else None


def _date(text: str) -> str | None:
    """Turn ``25-Sep-23  14:13:26`` into ISO 8601 without a zone."""
    for form in ("%d-%b-%y %H:%M:%S", "%d-%b-%Y %H:%M:%S"):
        try:
            return datetime.strptime(" ".join(text.split()), form).isoformat()
        except ValueError:
            continue
    return None
