"""What Thermo Fisher software writes into image files: FEI1/FEI2 headers of MRC, the acquisition block of EER.

Positive defocus is underfocus here; the files store underfocus as negative metres.
"""

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from mrcfile.dtypes import get_ext_header_dtype
from numpy.typing import NDArray

from icestream.io.mrc import HEADER_BYTES, MrcHeader
from icestream.io.raw import Source
from icestream.io.said import Said
from icestream.io.xmltree import finite, parse_xml, positive
from icestream.records import Acquisition, ExposureMetadata

_EPOCH = datetime(1899, 12, 30)  # the file stores local time without a zone


def read_fei_metadata(source: Source, header: MrcHeader) -> Said | None:
    """Return what the FEI1 or FEI2 extended header says about the first image, or None where there is none."""
    if header.extended_type not in (b"FEI1", b"FEI2"):
        return None
    order = ">" if header.dtype.str[0] == ">" else "<"
    dtype = get_ext_header_dtype(header.extended_type, order)
    if header.data_offset - HEADER_BYTES < dtype.itemsize:
        return None
    return decode_fei(np.frombuffer(source.read_at(HEADER_BYTES, dtype.itemsize), dtype=dtype, count=1))


def decode_fei(row: NDArray[Any]) -> Said:
    """Return the values of one FEI1 or FEI2 record, ``(1,)``; zeros mean unknown."""

    def number(name: str, factor: float = 1.0) -> float | None:
        value = float(row[name][0]) * factor
        return value if math.isfinite(value) else None

    def text(name: str) -> str | None:
        return row[name][0].split(b"\0")[0].decode("latin-1").strip() or None

    defocus = number("Applied defocus", -1e6)
    metadata = ExposureMetadata(
        acquired_at=_date(float(row["Timestamp"][0])),
        stage_y_um=number("Y-Stage", 1e6),
        stage_x_um=number("X-Stage", 1e6),
        stage_z_um=number("Z-Stage", 1e6),
        tilt_deg=number("Alpha tilt"),
        beam_shift_y=number("Shift Y"),
        beam_shift_x=number("Shift X"),
        applied_defocus_um=defocus or None,
        exposure_s=positive(number("Integration time")),
        total_dose_e_per_ang2=positive(number("Dose"), 1e-20),
        microscope=text("Microscope type"),
        camera=text("Camera name"),
    )
    acquisition = Acquisition(voltage_kv=positive(number("HT"), 1e-3), pixel_size_ang=positive(number("Pixel size X"), 1e10))
    return Said("its header", metadata, acquisition)


def _date(days: float) -> str | None:
    """Turn days since the end of 1899 into ISO 8601 without a zone; None where nothing sensible is stored."""
    if not 20000 < days < 80000:
        return None
    return (_EPOCH + timedelta(days=days)).isoformat(timespec="seconds")


def read_eer_metadata(path: Path, xml: bytes) -> Said:
    """Return what the acquisition block of an EER file says.

    The names of the items are those other public readers use; not verified on camera data. A pixel size is taken only if it
    can be one at the specimen (0.05 to 50 Å): some writers put the pitch of the sensor there.
    """
    root = parse_xml(path, xml.rstrip(b"\0"))
    items = {item.get("name", ""): (item.text or "").strip() for item in root.iter("item")}
    size = positive(finite(items.get("sensorPixelSize.width")), 1e10)
    metadata = ExposureMetadata(
        acquired_at=items.get("timestamp") or None,
        exposure_s=positive(finite(items.get("exposureTime"))),
        camera=items.get("commercialName") or items.get("cameraName") or None,
    )
    return Said("its header", metadata, Acquisition(pixel_size_ang=size if size is not None and 0.05 < size < 50 else None))
