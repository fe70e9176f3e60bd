"""EPU's XML beside each exposure (``FoilHole_….xml``)."""

import math
from pathlib import Path
from xml.etree.ElementTree import Element

from icestream.errors import FileFormatError
from icestream.io.xmltree import finite, parse_xml, positive, read_small
from icestream.records import Acquisition, ExposureMetadata


def read_epu_xml(path: Path) -> tuple[ExposureMetadata, Acquisition]:
    """Return what EPU wrote about one exposure; positive applied defocus is underfocus.

    Both kinds of file are read: the description of the image, and ``…_Fractions.xml`` with only camera and times. The dose per
    frame is the dose over the number of fractions, where the file lists fractions.

    Raises
    ------
    FileFormatError
        Not XML, or not EPU's.
    """
    root = parse_xml(path, read_small(path))
    if root.tag == "MicroscopeImage":
        return _microscope_image(root)
    if root.tag == "Acquisition":
        return _fractions(root)
    raise FileFormatError(path, f"not an EPU file: its root is <{root.tag}> (MicroscopeImage or Acquisition)")


def _microscope_image(root: Element) -> tuple[ExposureMetadata, Acquisition]:
    custom = _pairs(root.find("CustomData"))

    def number(where: str, factor: float = 1.0) -> float | None:
        value = finite(root.findtext(where))
        return None if value is None else value * factor

    defocus = finite(custom.get("AppliedDefocus"))
    dose = positive(finite(custom.get("Dose")), 1e-20)
    n_fractions = len(root.findall(".//DoseFractions/*"))
    shift, stage = "microscopeData/optics/BeamShift/", "microscopeData/stage/Position/"
    metadata = ExposureMetadata(
        acquired_at=root.findtext("microscopeData/acquisition/acquisitionDateTime"),
        stage_y_um=number(stage + "Y", 1e6),
        stage_x_um=number(stage + "X", 1e6),
        stage_z_um=number(stage + "Z", 1e6),
        tilt_deg=number(stage + "A", 180 / math.pi),
        beam_shift_y=number(shift + "_y"),
        beam_shift_x=number(shift + "_x"),
        applied_defocus_um=None if defocus is None else -defocus * 1e6,
        exposure_s=positive(number("microscopeData/acquisition/camera/ExposureTime")),
        total_dose_e_per_ang2=dose,
        microscope=root.findtext("microscopeData/instrument/InstrumentModel"),
        camera=custom.get("DetectorCommercialName") or root.findtext("microscopeData/acquisition/camera/Name"),
    )
    acquisition = Acquisition(
        voltage_kv=positive(number("microscopeData/gun/AccelerationVoltage"), 1e-3),
        pixel_size_ang=positive(number("SpatialScale/pixelSize/x/numericValue"), 1e10),
        dose_per_frame_e_per_ang2=dose / n_fractions if dose is not None and n_fractions else None,
    )
    return metadata, acquisition


def _pairs(parent: Element | None) -> dict[str, str]:
    """Return the simple values of a list of keys and values."""
    found = {}
    for pair in parent if parent is not None else ():
        key, value = pair.findtext("Key"), pair.findtext("Value")
        if key and value and value.strip():
            found[key] = value.strip()
    return found


def _fractions(root: Element) -> tuple[ExposureMetadata, Acquisition]:
    times = [finite(fraction.findtext("ExposureTime")) for fraction in root.iter("Fraction")]
    known = [time for time in times if time is not None]
    metadata = ExposureMetadata(
        acquired_at=root.findtext("Info/DateTimeWithTimeZone"),
        exposure_s=sum(known) if known and len(known) == len(times) else None,
        camera=root.findtext("Info/Detector"),
    )
    return metadata, Acquisition()
