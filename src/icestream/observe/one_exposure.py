"""One exposure in full, as data that a page draws: its images with what lies on them, and what each step says of it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icestream.errors import IcestreamError
from icestream.flow.declaration import find_step
from icestream.io.blocks import from_block
from icestream.observe.drawing.finding import count_of_images, full_image
from icestream.observe.exposure_data import (
    ArrowsData,
    CurveData,
    ExposureData,
    ImageData,
    OverlayData,
    PathData,
    ResultData,
    StepData,
)
from icestream.observe.exposures import PublishedPicture, neighbours
from icestream.observe.hand_picks import edits_picks
from icestream.observe.measured import pixel_size_of
from icestream.observe.motion_field import local_arrows
from icestream.observe.queries import SessionView
from icestream.observe.tracing import Trace, TracedResult, TracedStep
from icestream.observe.values import Told, combine, field_at, sentence_of, tell, unit_in
from icestream.records import Card, Curve, Image, MotionField, Number, Overlay, Path, Shown

MOST_POINTS = 20_000
"""So many positions of an overlay are given."""


def read_exposure(view: SessionView, wanted: str) -> ExposureData:
    """Return everything that is known about an exposure, given by id or name.

    Raises
    ------
    SessionError
        Nothing, or more than one, is called so.
    """
    trace = view.trace(wanted)
    drawing = _Drawing(view, view.catalog().shown, pixel_size_of(view), trace)
    with view.reading() as connection:
        before, after = (None, None) if connection is None else neighbours(connection, trace.unit)
    return ExposureData(
        unit=trace.unit,
        name=trace.name,
        number=trace.ordinal,
        source=trace.source,
        files=trace.files,
        acquisition=trace.acquisition,
        arrived_at=trace.arrived_at,
        before=before,
        after=after,
        decisions=tuple(view.decisions([trace.unit])),
        images=tuple(drawing.images()),
        steps=tuple(drawing.step(step) for step in trace.steps),
    )


@dataclass(frozen=True)
class _Drawing:
    view: SessionView
    shown: Callable[[str], Shown]
    pixel_size_ang: float | None
    trace: Trace

    def step(self, traced: TracedStep) -> StepData:
        bound = tuple(f"version {one.version} of {one.port}" for one in traced.bindings)
        once = {result.key: result for result in reversed(traced.results)}  # a step may give one result under several names
        makers = _makers(self.trace, before=traced)
        return StepData(
            step=traced.step,
            label=self._label(traced.step),
            use=traced.use,
            type_version=traced.type_version,
            revision=traced.revision,
            status=traced.status,
            reason=traced.reason,
            root=traced.root,
            at=traced.at,
            params=traced.params,
            own_params=None if traced.own is None else traced.own.sentence,
            bindings=bound,
            missing=traced.missing,
            forwards=tuple(dict.fromkeys(makers[key] for key in once if key in makers)),
            results=tuple(self._result(one) for key, one in reversed(once.items()) if key not in makers),
        )

    def images(self) -> Iterator[ImageData]:
        """Give the images of the exposure, those with positions on them first."""
        made = {step.step: result for step in self.trace.steps if (result := _made_here(step, self.trace)) is not None}
        shown = {step: self.shown(result.record_type) for step, result in made.items()}
        with_image = [step for step, one in shown.items() if one.image is not None]
        lying: dict[str, list[OverlayData]] = {}
        for step, one in shown.items():
            below = None if one.overlay is None else self._nearest(step, with_image)
            if one.overlay is not None and below is not None:
                lying.setdefault(below, []).append(self._overlay(step, one.overlay, made[step], made[below]))
        for step in sorted(with_image, key=lambda name: -len(lying.get(name, []))):
            image = shown[step].image
            found = None if image is None else self._image(step, image, made[step], tuple(lying.get(step, [])))
            if found is not None:
                yield found

    def _image(self, step: str, image: Image, made: TracedResult, overlays: tuple[OverlayData, ...]) -> ImageData | None:
        record = made.record
        if not field_at(record, image.picture):
            return None
        arrows = None if image.motion_field is None else self._arrows(image.motion_field, record)
        longest: tuple[Told, ...] = ()
        if image.motion_field is not None and arrows is not None:
            longest = ((image.motion_field.label, max(math.hypot(*one) for one in arrows.moved), arrows.unit),)
        return ImageData(
            step=step,
            label=self._label(step),
            picture=PublishedPicture(made.key, image.picture, self._label(step)),
            height_px=int(field_at(record, image.height)),
            width_px=int(field_at(record, image.width)),
            numbers=tell(image.numbers, record, pixel_size_ang=self.pixel_size_ang) + longest,
            path=None if image.path is None else self._path(image.path, record),
            arrows=arrows,
            overlays=overlays,
            full=full_image(self.shown(made.record_type), record) is not None,
        )

    def _arrows(self, motion: MotionField, record: Mapping[str, Any]) -> ArrowsData | None:
        arrows = local_arrows(field_at(record, motion.coefficients), scale=self.pixel_size_ang or 1.0)
        yx, moved = tuple((one.y, one.x) for one in arrows), tuple((one.dy, one.dx) for one in arrows)
        return ArrowsData(motion.label, "Å" if self.pixel_size_ang else "px", yx, moved) if arrows else None

    def _overlay(self, step: str, overlay: Overlay, positions: TracedResult, image: TracedResult) -> OverlayData:
        shown = self.shown(image.record_type).image
        height, width = (1, 1) if shown is None else (field_at(image.record, shown.height), field_at(image.record, shown.width))
        radius = 0.012 * width
        if self.pixel_size_ang:
            ang_per_px = combine(Number("", pixels="own"), (1.0, field_at(image.record, "bin") or 1.0), self.pixel_size_ang)
            radius = float(field_at(positions.record, overlay.diameter_ang)) / 2 / ang_per_px
        stored = self.view.records_of(step, [self.trace.unit]).get(self.trace.unit)
        block = None if stored is None else stored.block
        table = None if block is None else from_block(block)[:MOST_POINTS]  # (n,)
        pairs = [] if table is None else zip(table[overlay.y].tolist(), table[overlay.x].tolist(), strict=True)
        return OverlayData(
            step=step,
            label=self._label(step),
            word=overlay.word,
            count=int(field_at(positions.record, overlay.count)),
            radius_px=radius,
            xy=tuple((x, height - y) for y, x in pairs),
            pids=() if table is None or "pid" not in (table.dtype.names or ()) else tuple(table["pid"].tolist()),
            editable=self._is_editable(step),
        )

    def _is_editable(self, step: str) -> bool:
        spec = self.view.session.document.steps.get(step)
        try:
            return spec is not None and edits_picks(find_step(spec.use))
        except IcestreamError:  # of a plugin that is not installed
            return False

    def _result(self, result: TracedResult) -> ResultData:
        shown, record = self.shown(result.record_type), result.record
        curves = [self._curve(card.curve, record) for card in shown.cards if card.curve is not None]
        paths = [self._path(card.path, record) for card in shown.cards if card.path is not None]
        return ResultData(
            output=result.output,
            key=result.key,
            record_type=result.record_type,
            numbers=result.shown,
            pictures=tuple(
                PublishedPicture(result.key, path, title) for path, (title, _) in published_pictures(shown, record).items()
            ),
            curves=tuple(one for one in curves if one is not None),
            paths=tuple(one for one in paths if one is not None),
            texts=tuple(_sentences(shown.cards, record, "texts")) + result.notes,
            warnings=tuple(_sentences(shown.cards, record, "warnings")),
            fields=dict(_single_values(record)),
            inputs=result.inputs,
            files=result.files,
            wall_s=result.wall_s,
            cpu_s=result.cpu_s,
            host=result.host,
            software=result.software,
            created_at=result.created_at,
            particle_images=count_of_images(result.record_type, record),
        )

    def _curve(self, curve: Curve, record: Mapping[str, Any]) -> CurveData | None:
        x, measured, fitted = (tuple(field_at(record, path) or ()) for path in (curve.x, curve.measured, curve.fitted))
        if len(x) < 2 or not len(x) == len(measured) == len(fitted):
            return None
        mark = None if curve.mark is None else field_at(record, curve.mark)
        return CurveData(curve.title, curve.caption, curve.x_unit, x, measured, fitted, 1 / mark if mark else None)

    def _path(self, path: Path, record: Mapping[str, Any]) -> PathData | None:
        points, length = field_at(record, path.field) or (), Number("", path.field, "px", pixels=path.pixels)
        if len(points) < 2:
            return None
        scale = combine(length, (1.0, field_at(record, "bin") or 1.0), self.pixel_size_ang)
        scaled = tuple((y * scale, x * scale) for y, x in points)
        return PathData(path.title, path.caption, unit_in(length, self.pixel_size_ang), scaled)

    def _nearest(self, step: str, with_image: Sequence[str]) -> str | None:
        """Return the step whose image is the nearest upstream, else the last one that has an image."""
        upstream = [step]
        for name in upstream:
            if name in with_image:
                return name
            upstream.extend(one for one in self.view.inputs(name) if one not in upstream)
        return with_image[-1] if with_image else None

    def _label(self, step: str) -> str:
        spec = self.view.session.document.steps.get(step)
        return step if spec is None else spec.label or step


def _made_here(step: TracedStep, trace: Trace) -> TracedResult | None:
    """Return what a step made, unless it forwards what an earlier one made."""
    makers = _makers(trace, before=step)
    return next((one for one in step.results if one.output == "out" and one.key not in makers), None)


def _makers(trace: Trace, *, before: TracedStep) -> dict[str, str]:
    """Return key → the step that made it, of those before one."""
    earlier = trace.steps[: trace.steps.index(before)]
    return {result.key: step.step for step in reversed(earlier) for result in step.results}


def published_pictures(shown: Shown, record: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return field → title and file of every picture that is declared of a record and that it names."""
    declared = [card.picture for card in shown.cards if card.picture is not None]
    declared += [] if shown.gallery is None else [shown.gallery.picture]
    titles = {one.field: one.title for one in declared} | ({} if shown.image is None else {shown.image.picture: "Image"})
    return {path: (title, str(ref)) for path, title in titles.items() if (ref := field_at(record, path))}


def _sentences(cards: Sequence[Card], record: Mapping[str, Any], kind: str) -> Iterator[str]:
    for card in cards:
        for text in card.texts if kind == "texts" else card.warnings:
            said = sentence_of(text, record)
            if said:
                yield said


def _single_values(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | int | float | bool | None]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _single_values(value, f"{prefix}{name}.")
        elif isinstance(value, str | float | int | bool) or value is None:
            yield f"{prefix}{name}", value
