"""What files say about one exposure, and the rules by which values that contradict each other, or cannot be, are resolved.

Every rule that changes or drops a value adds a note, which people read. ``docs/how-to/sidecars.md`` states them for people.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from icestream.records import Acquisition, ExposureMetadata, possible_range

_LARGEST_TOTAL_E_PER_ANG2 = 1000.0
_SAME = 0.02
"""Relative difference of two values that are the same but for rounding."""
_UNITS = {name: unit for name, (_, _, unit) in ((name, possible_range(name)) for name in Acquisition.model_fields)}


@dataclass(frozen=True)
class Said:
    """What one file says about an exposure, as it says it.

    Attributes
    ----------
    origin
        Which file, in words.
    dose_per_frame_e_per_ang2, n_frames
        The dose of each listed frame where all have the same, and how many are listed.
    image_px, binning
        Height and width of the image that the pixel size is of, in pixels of the camera perhaps, and the binning of that image.
    other_kind
        What the image is, in words, where it is neither a movie nor a micrograph.
    notes
        What in it could not be read, or was left out.
    """

    origin: str
    metadata: ExposureMetadata = field(default_factory=ExposureMetadata)
    acquisition: Acquisition = field(default_factory=Acquisition)
    dose_per_frame_e_per_ang2: float | None = None
    n_frames: int | None = None
    image_px: tuple[int, int] | None = None
    binning: float = 1.0
    other_kind: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frames:
    """The frames that a file holds; unset is their number for a sum of frames.

    ``rendered`` tells of electron events (EER): their frames are those of the camera's read-out.
    """

    n_frames: int | None
    height_px: int
    width_px: int
    rendered: bool = False


def agree(said: Sequence[Said], frames: Frames | None) -> tuple[ExposureMetadata, Acquisition]:
    """Return what files say together, the first taking precedence; the metadata note what was contradicted, or could not be.

    Parameters
    ----------
    frames
        What is in the image file itself; unset: nothing is compared with it, and a total dose is not divided.
    """
    notes: list[str] = []
    told = [_possible(one, notes) for one in said]
    if frames is None:
        told = [_as_listed(one) for one in told]
    else:
        told = [_fit_pixel_size(one, frames, notes) for one in told]
        told = [_fit_dose(one, frames, notes) for one in told]
    acquisition: dict[str, float] = {}
    source: dict[str, str] = {}
    for one in told:
        for name, value in one.acquisition.model_dump(exclude_none=True).items():
            first = acquisition.setdefault(name, value)
            if source.setdefault(name, one.origin) != one.origin and abs(first - value) > _SAME * max(first, value):
                both = f"{source[name]} says {first:.4g} {_UNITS[name]}, {one.origin} {value:.4g} {_UNITS[name]}"
                notes.append(f"{name}: {both}; the first is used")
    known: dict[str, Any] = {}
    for one in reversed(told):
        known |= one.metadata.model_dump(exclude_none=True)
    notes = [*(note for one in said for note in one.notes), *notes]
    return ExposureMetadata(**known | {"note": "; ".join(notes) or None}), Acquisition(**acquisition)


def _as_listed(said: Said) -> Said:
    """Take the dose of a frame as it is listed; where one frame is listed, it may be the whole exposure."""
    if said.dose_per_frame_e_per_ang2 is None or said.n_frames in (None, 1):
        return said
    dose = {"dose_per_frame_e_per_ang2": said.dose_per_frame_e_per_ang2}
    return replace(said, acquisition=said.acquisition.model_copy(update=dose))


def _possible(said: Said, notes: list[str]) -> Said:
    """Leave out values that no microscope has."""
    kept = dict(said.acquisition.model_dump(exclude_none=True))
    for name, value in list(kept.items()):
        low, high, unit = possible_range(name)
        if not low <= value <= high:
            del kept[name]
            notes.append(f"{said.origin} gives {name} as {value:.4g} {unit}: must be {low:g} to {high:g}, and is not used")
    metadata, dose, total = said.metadata, said.dose_per_frame_e_per_ang2, said.metadata.total_dose_e_per_ang2
    whole = total if dose is None or said.n_frames is None else max(dose * said.n_frames, total or 0.0)
    if whole is not None and whole > _LARGEST_TOTAL_E_PER_ANG2:
        allowed = f"no more than {_LARGEST_TOTAL_E_PER_ANG2:g}"
        notes.append(f"{said.origin} gives a total dose of {whole:.4g} e/Å²: can be {allowed}, and is not used")
        metadata, dose = metadata.model_copy(update={"total_dose_e_per_ang2": None}), None
    return replace(said, acquisition=Acquisition(**kept), metadata=metadata, dose_per_frame_e_per_ang2=dose)


def _fit_pixel_size(said: Said, frames: Frames, notes: list[str]) -> Said:
    """Turn the pixel size of an image into that of the frames, where they are that image in finer or coarser pixels."""
    size, image = said.acquisition.pixel_size_ang, said.image_px
    if size is None or image is None:
        return said
    mine = frames.height_px, frames.width_px
    shown = f"{image[0]}×{image[1]}", f"{mine[0]}×{mine[1]}"
    binned = tuple(round(length / said.binning) for length in image)
    if mine == image:
        if said.binning != 1:
            text = f"is binned by {said.binning:g} in {said.origin}, yet frames have all its {shown[0]} pixels"
            notes.append(f"the image {text}; the pixel size of {size:.4g} Å is used as it is stated")
        return said
    if mine == binned:
        return said
    ratios = [length / own for length, own in zip(image, mine, strict=True)]
    power = next((two for two in (0.125, 0.25, 0.5, 2.0, 4.0, 8.0) if all(abs(ratio / two - 1) < 0.01 for ratio in ratios)), None)
    if power is None:
        about = f"the pixel size of {size:.4g} Å in {said.origin} is of an image of {shown[0]}"
        notes.append(f"{about}, the frames are {shown[1]} (height × width): taken as a part of it, with the same pixels")
        return said
    own = size * power
    about = f"the pixel size of {size:.4g} Å in {said.origin} is of an image of {shown[0]}"
    notes.append(f"{about}; the frames of {shown[1]} (height × width) get {own:.4g} Å")
    return replace(said, acquisition=said.acquisition.model_copy(update={"pixel_size_ang": own}))


def _fit_dose(said: Said, frames: Frames, notes: list[str]) -> Said:
    """Find the dose of a frame of the file: as listed, or the total over all frames where more were written than listed."""
    dose, listed, total = said.dose_per_frame_e_per_ang2, said.n_frames, said.metadata.total_dose_e_per_ang2
    if total is None and dose is not None and listed is not None:
        total = dose * listed
    if frames.n_frames is None or (dose is None and total is None):
        return said
    counted = listed is not None and listed != frames.n_frames
    if counted:
        about = f"{said.origin} lists {listed} frame{'s' * (listed != 1)}, the file has {frames.n_frames}"
    if dose is not None and listed is not None and listed > frames.n_frames and not frames.rendered:
        notes.append(f"{about}: some are missing, and each has the {dose:.4g} e/Å² that are stated")
        own = dose
    elif dose is not None and not counted:
        own = dose
    elif total is None:
        return said
    else:
        own = total / frames.n_frames
        if counted:
            notes.append(f"{about}: the total dose of {total:.4g} e/Å² is divided by these")
    metadata = said.metadata.model_copy(update={"total_dose_e_per_ang2": total})
    acquisition = said.acquisition.model_copy(update={"dose_per_frame_e_per_ang2": own})
    return replace(said, acquisition=acquisition, metadata=metadata)
