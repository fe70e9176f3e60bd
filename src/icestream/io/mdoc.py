"""SerialEM's mdoc files: ``key = value`` lines under ``[FrameSet = n]`` or ``[ZValue = n]`` headings."""

import re
from datetime import datetime
from pathlib import Path, PureWindowsPath

from icestream.errors import FileFormatError
from icestream.io.said import Said
from icestream.io.xmltree import Numbers, finite, positive, read_small
from icestream.records import Acquisition, ExposureMetadata

_HEADING = re.compile(r"\[\s*(\w+)\s*=\s*(.*?)\s*\]$")
_TITLE = re.compile(r"SerialEM:\s*(?:Digitized (?:by|on) )?(.*?)\s*\d{2}-\w{3}-\d{2,4}\s")
Section = dict[str, str]


def parse_mdoc(path: Path) -> tuple[Section, list[Section]]:
    """Return the values before the first heading, and those under each FrameSet or ZValue heading.

    Raises
    ------
    FileFormatError
        It is no text, or describes no exposure.
    """
    text = read_small(path).decode("utf-8", errors="replace")
    if any(character < " " and character not in "\t\r\n\f" for character in text):
        raise FileFormatError(path, "not a SerialEM mdoc: it is no text")
    general: Section = {}
    sections: list[Section] = []
    current = general
    for line in text[: text.rfind("\n") + 1].splitlines():  # a last line without an end may be half a number
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
    if not any(sections):
        raise FileFormatError(path, "not a SerialEM mdoc: there is no 'key = value' line under a [FrameSet] or [ZValue] heading")
    return general, sections


def read_mdoc(path: Path, *, movie_name: str | None = None) -> Said:
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
    values = {**general, **(own or sections)[0]}
    numbers = Numbers(path.name)

    def number(name: str) -> float | None:
        return numbers.read(name, values.get(name))

    if not read_small(path).endswith(b"\n"):
        numbers.notes.append(f"{path.name} ends within a line: it may be written only in part")
    stage = [finite(part) for part in values.get("StagePosition", "").split()] + [None, None]
    shift = [finite(part) for part in values.get("ImageShift", "").split()] + [None, None]
    defocus = number("TargetDefocus" if "TargetDefocus" in values else "Defocus")
    title = _TITLE.search(values.get("T", "") + " ")
    dose, n_frames, listed = _frame_doses(values.get("FrameDosesAndNumber", ""), numbers)
    metadata = ExposureMetadata(
        acquired_at=_date(values.get("DateTime", "")),
        stage_y_um=stage[1],
        stage_x_um=stage[0],
        stage_z_um=number("StageZ"),
        tilt_deg=number("TiltAngle"),
        image_shift_y_um=shift[1],
        image_shift_x_um=shift[0],
        foil_hole=_hole(values),
        applied_defocus_um=None if defocus is None else -defocus,
        exposure_s=positive(number("ExposureTime")),
        total_dose_e_per_ang2=_total_dose(positive(number("ExposureDose")), listed, numbers),
        microscope=title[1].strip() or None if title else None,
    )
    acquisition = Acquisition(voltage_kv=positive(number("Voltage")), pixel_size_ang=_pixel_size(values, numbers))
    whole = n_frames if n_frames is not None else number("NumSubFrames")
    count = None if whole is None or whole < 1 else int(whole)
    other = "a montage" if general.get("Montage") == "1" else None
    return Said(path.name, metadata, acquisition, dose, count, other_kind=other, notes=tuple(numbers.notes))


def _hole(values: Section) -> str | None:
    """Return the hole: the label of the Navigator item, with the number of the hole where one item stands for several.

    ``MultishotHoleAndPosition`` is ``hole-position`` or ``hole position``, a hole by one number or by two.
    """
    label, parts = values.get("NavigatorLabel"), re.findall(r"\d+", values.get("MultishotHoleAndPosition", ""))
    if not label:
        return None
    hole = ",".join(parts[:-1])
    return label if hole in ("", "0", "1", "0,0") else f"{label} hole {hole}"


def _pixel_size(values: Section, numbers: Numbers) -> float | None:
    size, binning = numbers.read("PixelSpacing", values.get("PixelSpacing")), numbers.read("Binning", values.get("Binning"))
    if size is None or (binning is not None and binning <= 1):
        return positive(size)
    how = "a view with an unknown binning" if binning is None else f"a view binned by {binning:g}"
    numbers.notes.append(f"{numbers.origin} gives the pixel size of {how}, not of the frames: it is not used")
    return None


def _frame_doses(text: str, numbers: Numbers) -> tuple[float | None, int | None, float | None]:
    """Return the dose of a frame from ``dose number [dose number …]``, how many frames there are, and their whole dose."""
    found = [numbers.read("FrameDosesAndNumber", part) for part in text.split()]
    known = [value for value in found if value is not None]
    if not known or len(known) < len(found) or len(known) % 2 or min(known) < 0 or min(known[1::2]) < 1:
        return None, None, None
    doses, counts = known[0::2], [int(count) for count in known[1::2]]
    total = sum(dose * count for dose, count in zip(doses, counts, strict=True))
    if min(doses) < max(doses):
        numbers.notes.append(f"{numbers.origin} lists frames of {min(doses):g} to {max(doses):g} e/Å²: each is given their mean")
        return positive(total / sum(counts)), sum(counts), positive(total)
    return positive(doses[0]), sum(counts), positive(total)


def _total_dose(whole: float | None, listed: float | None, numbers: Numbers) -> float | None:
    """Return the dose of the exposure: that of its frames, where they are listed; note where the two differ."""
    if whole is not None and listed is not None and abs(whole - listed) > 0.05 * max(whole, listed):
        both = f"a dose of {whole:.4g} e/Å² for the exposure, and of {listed:.4g} e/Å² for its frames"
        numbers.notes.append(f"{numbers.origin} gives {both}; the second is used")
    return whole if listed is None else listed


def _date(text: str) -> str | None:
    """Turn ``25-Sep-23  14:13:26`` into ISO 8601 without a zone."""
    for form in ("%d-%b-%y %H:%M:%S", "%d-%b-%Y %H:%M:%S"):
        try:
            return datetime.strptime(" ".join(text.split()), form).isoformat()
        except ValueError:
            continue
    return None
