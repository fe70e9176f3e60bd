"""EPU's XML beside each exposure (``FoilHole_….xml``)."""

import math
from pathlib import Path
from xml.etree.ElementTree import Element

from icestream.errors import FileFormatError
from icestream.io.said import Said
from icestream.io.xmltree import Numbers, finite, parse_xml, positive, read_small
from icestream.records import Acquisition, ExposureMetadata

_CAMERA = "microscopeData/acquisition/camera/"


def read_epu_xml(path: Path) -> Said:
    """Return what EPU wrote about one exposure; positive applied defocus is underfocus.

    Both kinds of file are read: the description of the image, and ``…_Fractions.xml`` with only camera and times. The total dose
    is that on the specimen (``Dose``); without it, the dose on the camera that took the image, by pixel, over the area of one.

    Raises
    ------
    FileFormatError
        Not XML, or not EPU's.
    """
    root = parse_xml(path, read_small(path))
    if root.tag == "MicroscopeImage":
        return _microscope_image(root, path.name)
    if root.tag == "Acquisition":
        return _fractions(root, path.name)
    raise FileFormatError(path, f"not an EPU file: its root is <{root.tag}> (MicroscopeImage or Acquisition)")


def _microscope_image(root: Element, origin: str) -> Said:
    custom, numbers = _pairs(root.find("CustomData")), Numbers(origin)

    def number(where: str, factor: float = 1.0) -> float | None:
        return numbers.read(where.rpartition("/")[2], root.findtext(where), factor)

    defocus = numbers.read("AppliedDefocus", custom.get("AppliedDefocus"), -1e6)
    pixel_ang = positive(numbers.read("pixelSize", root.findtext("SpatialScale/pixelSize/x/numericValue"), 1e10))
    shift, stage = "microscopeData/optics/BeamShift/", "microscopeData/stage/Position/"
    metadata = ExposureMetadata(
        acquired_at=root.findtext("microscopeData/acquisition/acquisitionDateTime"),
        stage_y_um=number(stage + "Y", 1e6),
        stage_x_um=number(stage + "X", 1e6),
        stage_z_um=number(stage + "Z", 1e6),
        tilt_deg=number(stage + "A", 180 / math.pi),
        beam_shift_y=number(shift + "_y"),
        beam_shift_x=number(shift + "_x"),
        applied_defocus_um=defocus,
        exposure_s=positive(number(_CAMERA + "ExposureTime")),
        total_dose_e_per_ang2=_total_dose(custom, pixel_ang, numbers),
        microscope=root.findtext("microscopeData/instrument/InstrumentModel"),
        camera=custom.get("DetectorCommercialName") or root.findtext(_CAMERA + "Name"),
    )
    voltage = positive(number("microscopeData/gun/AccelerationVoltage"), 1e-3)
    height, width = (number(f"{_CAMERA}ReadoutArea/{side}") for side in ("height", "width"))
    return Said(
        origin,
        metadata,
        Acquisition(voltage_kv=voltage, pixel_size_ang=pixel_ang),
        n_frames=len(root.findall(".//DoseFractions/*")) or None,
        image_px=(int(height), int(width)) if height and width and min(height, width) >= 1 else None,
        binning=positive(number(_CAMERA + "Binning/x")) or 1.0,
        notes=tuple(numbers.notes),
    )


def _total_dose(custom: dict[str, str], pixel_ang: float | None, numbers: Numbers) -> float | None:
    """Return the dose on the specimen in e/Å²; note where the dose on the camera contradicts it.

    EPU 3 writes a ``TotalDose`` for each detector, in electrons on a pixel of the camera: that of the image's own one counts.
    """
    dose = positive(numbers.read("Dose", custom.get("Dose")), 1e-20)
    name = f"Detectors[{custom.get('BinaryResult.Detector', '')}].TotalDose"
    camera = next((key for key in (name, "DoseOnCamera") if positive(finite(custom.get(key)))), None)
    if camera is None or pixel_ang is None:
        return dose
    on_camera = positive(numbers.read(camera, custom[camera]), 1 / pixel_ang**2)
    if dose is None or on_camera is None:
        return on_camera if dose is None else dose
    if abs(on_camera - dose) > 0.1 * max(on_camera, dose):
        both = f"a dose of {dose:.4g} e/Å² on the specimen, and of {on_camera:.4g} e/Å² by {camera} and the pixel size"
        numbers.notes.append(f"{numbers.origin} gives {both}; the first is used")
    return dose


def _pairs(parent: Element | None) -> dict[str, str]:
    """Return the simple values of a list of keys and values."""
    found = {}
    for pair in parent if parent is not None else ():
        key, value = pair.findtext("Key"), pair.findtext("Value")
        if key and value and value.strip():
            found[key] = value.strip()
    return found


def _fractions(root: Element, origin: str) -> Said:
    times = [finite(fraction.findtext("ExposureTime")) for fraction in root.iter("Fraction")]
    known = [time for time in times if time is not None]
    metadata = ExposureMetadata(
        acquired_at=root.findtext("Info/DateTimeWithTimeZone"),
        exposure_s=sum(known) if known and len(known) == len(times) else None,
        camera=root.findtext("Info/Detector"),
    )
    return Said(origin, metadata, n_frames=len(times) or None)
