"""The maps in three dimensions that steps have made: what is declared of them, as data that a page draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icestream.observe.drawing.finding import densities_in
from icestream.observe.exposure_data import CurveData
from icestream.observe.exposures import PublishedPicture
from icestream.observe.one_exposure import read_curve
from icestream.observe.queries import SessionView, StepSummary
from icestream.observe.values import Told, field_at, sentence_of, tell
from icestream.records import Card, Shown, Text

MOST_VERSIONS = 500


@dataclass(frozen=True)
class DensityData:
    """A map that can be turned; of a record with several, ``part`` says which."""

    title: str
    part: int | None


@dataclass(frozen=True)
class VolumeCard:
    """A part of what is shown of a map: numbers, a picture, a curve, sentences."""

    title: str
    subtitle: str
    numbers: tuple[Told, ...]
    picture: PublishedPicture | None
    caption: str
    curve: CurveData | None
    texts: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class SurvivingStage:
    """What is left of the session after a step on the way to a map: items, what was set aside or failed, and particles."""

    step: str
    label: str
    items: int
    rejected: int
    failed: int
    particles: int | None
    """Of a step that gives particles, or some of those it got."""


@dataclass(frozen=True)
class VolumeData:
    """One version of what a step with maps has made."""

    step: str
    label: str
    title: str
    key: str
    record_type: str
    version: int
    versions: tuple[int, ...]
    """Those that can be shown, oldest first."""
    at: float
    there: bool
    """Its files are; those of older versions may have been removed."""
    verdict: str | None
    densities: tuple[DensityData, ...]
    cards: tuple[VolumeCard, ...]
    survived: tuple[SurvivingStage, ...]
    """From the first step to the last above this one, as the session is now."""


def read_volumes(view: SessionView, *, step: str | None = None, version: int | None = None) -> list[VolumeData]:
    """Return the newest version, or a wanted one, of every step whose records declare a map, or of one step."""
    catalog, found, steps = view.catalog(), [], view.steps()
    for name in view.order if step is None else [step]:
        stored = [one for one in view.snapshots(name, limit=MOST_VERSIONS) if one.record is not None]
        wanted = next((one for one in stored if version in (None, one.version)), None)
        shown = Shown() if wanted is None else catalog.shown(wanted.record_type)
        if wanted is None or wanted.record is None or not _declares_maps(shown):
            continue
        spec, record = view.session.document.steps.get(name), wanted.record
        verdict = record.get("verdict")
        found.append(
            VolumeData(
                step=name,
                label=name if spec is None else spec.label or name,
                title=shown.panel.title
                if shown.panel is not None
                else shown.gallery.title
                if shown.gallery is not None
                else name,
                key=wanted.key,
                record_type=wanted.record_type or "",
                version=wanted.version,
                versions=tuple(sorted(one.version for one in stored)),
                at=wanted.at,
                there=not wanted.pruned,
                verdict=verdict if isinstance(verdict, str) else None,
                densities=()
                if wanted.pruned
                else tuple(DensityData(title, part) for title, part, _ in densities_in(shown, record)),
                cards=_cards(shown, record, None if wanted.pruned else wanted.key),
                survived=what_survived(view, name, steps),
            )
        )
    return found


def what_survived(view: SessionView, step: str, steps: Sequence[StepSummary]) -> tuple[SurvivingStage, ...]:
    """Return what every step above one has let through, in the order of the workflow, as the session is now.

    Steps that work on wholes or batches are left out: their items are versions, and no exposures.
    """
    above = list(view.inputs(step))
    for name in above:
        above.extend(one for one in view.inputs(name) if one not in above)
    catalog, found = view.catalog(), []
    for one in steps:
        known = catalog.description(one.records.get("out", ""))
        if one.name not in above or one.kind not in ("source", "map", "filter") or (known is not None and known.whole):
            continue
        weighs = one.weight != one.counts.item
        found.append(
            SurvivingStage(
                step=one.name,
                label=one.label,
                items=one.counts.item,
                rejected=one.counts.rejected,
                failed=one.counts.failed,
                particles=one.weight if weighs else None,
            )
        )
    return tuple(found)


def _declares_maps(shown: Shown) -> bool:
    return any(card.density is not None for card in shown.cards) or bool(shown.gallery and shown.gallery.density)


def _cards(shown: Shown, record: Mapping[str, Any], key: str | None) -> tuple[VolumeCard, ...]:
    cards = [_card(card, record, key) for card in shown.cards]
    gallery = shown.gallery
    if gallery is not None and gallery.density and key is not None and field_at(record, gallery.picture.field):
        picture = PublishedPicture(key, gallery.picture.field, gallery.picture.title)
        cards.append(VolumeCard(gallery.title, "", (), picture, gallery.picture.caption, None, (), ()))
    return tuple(cards)


def _card(card: Card, record: Mapping[str, Any], key: str | None) -> VolumeCard:
    drawn = card.picture is not None and key is not None and field_at(record, card.picture.field)
    return VolumeCard(
        title=card.title or "",
        subtitle="" if card.subtitle is None else sentence_of(card.subtitle, record) or "",
        numbers=tell(card.numbers, record),
        picture=PublishedPicture(key, card.picture.field, card.picture.title) if drawn and card.picture and key else None,
        caption=card.picture.caption if card.picture is not None else "",
        curve=None if card.curve is None else read_curve(card.curve, record),
        texts=_said(card.texts, record),
        warnings=_said(card.warnings, record),
    )


def _said(texts: tuple[Text, ...], record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(said for one in texts if (said := sentence_of(one, record)))
