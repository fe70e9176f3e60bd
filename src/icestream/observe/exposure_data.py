"""What is known about one exposure, as data that a page draws: images, what lies on them, curves, paths, steps, lineage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icestream.observe.exposures import PublishedPicture
from icestream.observe.people import Decision
from icestream.observe.values import Told


@dataclass(frozen=True)
class CurveData:
    """A measured curve with its fit, against ``x_unit``, and where a mark is on its axis."""

    title: str
    caption: str
    x_unit: str
    x: tuple[float, ...]
    measured: tuple[float, ...]
    fitted: tuple[float, ...]
    mark: float | None
    errors: tuple[float, ...] = ()
    """Standard deviations of ``fitted``, where they are known."""


@dataclass(frozen=True)
class PathData:
    """A path of the specimen; the first point is where it began."""

    title: str
    caption: str
    unit: str
    yx: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ArrowsData:
    """How far parts of the specimen went beside their common path: from ``y, x`` (-0.5 to 0.5 of the frame) by ``dy, dx``."""

    title: str
    unit: str
    yx: tuple[tuple[float, float], ...]
    moved: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class OverlayData:
    """Positions on an image, in its pixels, with row 0 at the top of the picture."""

    step: str
    label: str
    word: str
    count: int
    radius_px: float
    xy: tuple[tuple[float, float], ...]
    pids: tuple[int, ...] = ()
    """The numbers of the positions, where they have some."""
    editable: bool = False
    """Positions can be added and removed by hand."""


@dataclass(frozen=True)
class ImageData:
    """An image of the exposure and what lies on it."""

    step: str
    label: str
    picture: PublishedPicture
    height_px: int
    width_px: int
    numbers: tuple[Told, ...]
    path: PathData | None
    arrows: ArrowsData | None
    overlays: tuple[OverlayData, ...]
    full: bool = False
    """It can be drawn in full resolution."""


@dataclass(frozen=True)
class ResultData:
    """What one key stands for: its numbers, pictures and curves, and where it comes from."""

    output: str
    key: str
    record_type: str
    numbers: tuple[Told, ...]
    pictures: tuple[PublishedPicture, ...]
    curves: tuple[CurveData, ...]
    paths: tuple[PathData, ...]
    texts: tuple[str, ...]
    warnings: tuple[str, ...]
    fields: Mapping[str, str | int | float | bool | None]
    """The fields that are single values, by dotted names."""
    inputs: Mapping[str, Sequence[str]]
    files: tuple[str, ...]
    wall_s: float
    cpu_s: float
    host: str
    software: str
    created_at: float
    particle_images: int = 0
    """So many particles have images that can be drawn."""


@dataclass(frozen=True)
class StepData:
    """What one step says of the exposure; ``status`` is unset while it has not decided."""

    step: str
    label: str
    use: str
    type_version: int
    revision: int
    status: str | None
    reason: str | None
    root: str | None
    at: float | None
    params: Mapping[str, Any]
    own_params: str | None
    bindings: tuple[str, ...]
    missing: tuple[str, ...]
    forwards: tuple[str, ...]
    """The steps whose results it passes on."""
    results: tuple[ResultData, ...]
    """What it made itself."""


@dataclass(frozen=True)
class ExposureData:
    """Everything that is known about one exposure."""

    unit: str
    name: str
    number: int | None
    source: str | None
    files: tuple[str, ...]
    acquisition: Mapping[str, int | float | str | None]
    arrived_at: float | None
    before: str | None
    after: str | None
    decisions: tuple[Decision, ...]
    images: tuple[ImageData, ...]
    steps: tuple[StepData, ...]
