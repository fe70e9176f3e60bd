"""Sidecars as EPU and SerialEM write them, also damaged ones."""

from pathlib import Path

import numpy as np

from icestream.microscope.grid import beam_shift_yx, hole_label
from icestream.microscope.settings import SidecarFault, SimulationSettings
from icestream.microscope.truth import ExposureTruth

_ARRAYS = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
_DRAWING = "http://schemas.datacontract.org/2004/07/System.Drawing"
_STAGE_UM = 5.0
"""How far exposures lie from each other on the grid."""


def sidecar_name(movie: Path, settings: SimulationSettings) -> Path:
    """Return the file in which the acquisition software describes a movie."""
    if settings.sidecars == "serialem":
        return movie.with_name(f"{movie.name}.mdoc")
    stem = movie.stem
    for ending in ("_fractions", "_EER", "_Fractions"):
        stem = stem.removesuffix(ending)
    return movie.with_name(f"{stem}.xml")


def sidecar_text(movie: Path, truth: ExposureTruth, settings: SimulationSettings) -> bytes:
    """Return what the acquisition software writes about a movie, or a part of it, or none of it, by its fault."""
    fault = settings.sidecar_faults.get(truth.index)
    if fault is SidecarFault.GARBAGE:
        return settings.generator(5, truth.index).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    whole = _epu(truth, settings) if settings.sidecars == "epu" else _serialem(movie, truth, settings)
    text = whole.encode()
    return text[: len(text) // 2] if fault is SidecarFault.HALF else text


def _stored_frames(truth: ExposureTruth, settings: SimulationSettings) -> int:
    return truth.n_frames * (settings.eer_frames_per_frame if settings.format == "eer" else 1)


def _stage_yx_um(truth: ExposureTruth) -> tuple[float, float]:
    return (0.0, _STAGE_UM * truth.index) if truth.hole is None else (truth.hole.stage_y_um, truth.hole.stage_x_um)


def _shift_yx(truth: ExposureTruth) -> tuple[float, float]:
    return (0.0, 0.0) if truth.hole is None else beam_shift_yx(truth.hole)


def _serialem(movie: Path, truth: ExposureTruth, settings: SimulationSettings) -> str:
    n_frames = _stored_frames(truth, settings)
    whole = settings.dose_per_stored_frame_e_per_ang2 * n_frames
    single = settings.sidecar_faults.get(truth.index) is SidecarFault.CONTRADICTS
    doses = f"{whole:g} 1" if single else f"{settings.dose_per_stored_frame_e_per_ang2:g} {n_frames}"
    values = {
        "TiltAngle": "0",
        "StagePosition": "{1:g} {0:g}".format(*_stage_yx_um(truth)),
        "StageZ": "0",
        "ExposureDose": f"{whole:g}",
        "PixelSpacing": f"{truth.pixel_size_ang:g}",
        "Defocus": f"{-truth.mean_defocus_ang * 1e-4:g}",
        "ExposureTime": f"{0.05 * n_frames:g}",
        "Binning": "1",
        "TargetDefocus": f"{-round(truth.mean_defocus_ang * 1e-4, 1):g}",
        "SubFramePath": f"X:\\frames\\{movie.name}",
        "NumSubFrames": "1" if single else str(n_frames),
        "FrameDosesAndNumber": doses,
        "DateTime": "29-Nov-26  12:00:00",
    }
    if truth.hole is not None:
        values["ImageShift"] = "{1:.6f} {0:.6f}".format(*beam_shift_yx(truth.hole))
        values["NavigatorLabel"] = hole_label(truth.hole.hole)
    lines = "".join(f"{name} = {value}\r\n" for name, value in values.items())
    title = "T = SerialEM: Digitized by a simulated camera on icestream 29-Nov-26  12:00:00"
    return f"{title}\r\nVoltage = {settings.voltage_kv:g}\r\n\r\n[FrameSet = 0]\r\n{lines}"


def _epu(truth: ExposureTruth, settings: SimulationSettings) -> str:
    n_frames = 1 if settings.sidecar_faults.get(truth.index) is SidecarFault.CONTRADICTS else truth.n_frames
    whole = settings.dose_per_frame_e_per_ang2 * truth.n_frames
    size_m = truth.pixel_size_ang * 1e-10
    own = {
        "DoseOnCamera": whole * truth.pixel_size_ang**2,
        "Dose": whole * 1e20,
        "Detectors[EF-Falcon].TotalDose": whole * truth.pixel_size_ang**2,
        "Detectors[BM-Ceta].TotalDose": 0.0,
        "BinaryResult.Detector": "EF-Falcon",
        "DetectorCommercialName": "Falcon 4i",
        "AppliedDefocus": -truth.mean_defocus_ang * 1e-10,
    }
    pairs = "".join(
        f"<a:KeyValueOfstringanyType><a:Key>{key}</a:Key><a:Value>{value}</a:Value></a:KeyValueOfstringanyType>"
        for key, value in own.items()
    )
    listed = "" if settings.format == "eer" else "<b:DoseFractionDefinition/>" * n_frames
    area = f"<a:height>{truth.height_px}</a:height><a:width>{truth.width_px}</a:width><a:x>0</a:x><a:y>0</a:y>"
    camera = (
        f'<Binning xmlns:a="{_DRAWING}"><a:x>1</a:x><a:y>1</a:y></Binning>'
        f'<CameraSpecificInput><DoseFractions xmlns:b="icestream">{listed}</DoseFractions></CameraSpecificInput>'
        f"<ExposureTime>{0.05 * _stored_frames(truth, settings)}</ExposureTime><Name>EF-Falcon</Name>"
        f'<ReadoutArea xmlns:a="{_DRAWING}">{area}</ReadoutArea>'
    )
    (shift_y, shift_x), (stage_y_um, stage_x_um) = _shift_yx(truth), _stage_yx_um(truth)
    sides = "".join(f"<{axis}><numericValue>{size_m}</numericValue></{axis}>" for axis in "xy")
    return (
        '<MicroscopeImage xmlns="http://schemas.datacontract.org/2004/07/Fei.SharedObjects">'
        f'<CustomData xmlns:a="{_ARRAYS}">{pairs}</CustomData><SpatialScale><pixelSize>{sides}</pixelSize></SpatialScale>'
        f"<microscopeData><acquisition><acquisitionDateTime>2026-11-29T12:00:00+00:00</acquisitionDateTime>"
        f"<camera>{camera}</camera></acquisition>"
        f"<gun><AccelerationVoltage>{settings.voltage_kv * 1e3}</AccelerationVoltage></gun>"
        "<instrument><InstrumentModel>ICESTREAM</InstrumentModel></instrument>"
        f"<optics><BeamShift><_x>{shift_x:g}</_x><_y>{shift_y:g}</_y></BeamShift></optics>"
        f"<stage><Position><A>0</A><X>{stage_x_um * 1e-6}</X><Y>{stage_y_um * 1e-6:g}</Y><Z>0</Z></Position></stage>"
        "</microscopeData></MicroscopeImage>"
    )
