"""Judging what a micrograph shows: nothing, bare or crystalline ice, film, dirt, or particles."""

from dataclasses import asdict
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.micrograph.features import MicrographFeatures, MicrographMaps, measure_features_2d
from icestream.algorithms.micrograph.triage import GOOD, Judgement, judge_micrograph, replace_bounds
from icestream.flow import Context, Field, ItemError, Params, Verdict, keep, limits, reject, step
from icestream.io.image import read_image
from icestream.io.preview import write_rgb
from icestream.records import Acquisition, CtfFit, FileRef, Method, Micrograph, MicrographKind, MicrographQuality, Text

_TINTS = {"film": (0.2, 0.5, 1.0), "dark": (1.0, 0.25, 0.2), "particles": (0.2, 0.8, 0.3), "bragg": (1.0, 0.85, 0.1)}
_TINT_SHARE = 0.35
_DIGITS = 4
_CERTAIN = 0.95


class TriageParams(Params):
    """Which kinds of micrographs are kept, and how much of one may be bad."""

    keep: tuple[MicrographKind, ...] = Field(
        GOOD, min_length=1, description=f"Kinds that are kept, of {', '.join(get_args(MicrographKind))}"
    )
    max_dark_share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Largest share of the image under dark objects",
        json_schema_extra=limits("quality_dark_percent", "most", factor=100.0),
    )
    max_film_share: float = Field(0.5, gt=0, le=1, description="Largest share of the image that is film")
    max_bragg_share: float = Field(0.15, gt=0, le=1, description="Largest share of the tiles with Bragg spots of ice")
    min_score: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Smallest probability that the micrograph is worth keeping",
        json_schema_extra=limits("quality_keep_probability", "least"),
    )


@step.map(
    "measure_quality",
    version=3,
    reads=("pixel_size_ang", "dose_per_frame_e_per_ang2"),
    method=Method((Text("The quality of each micrograph was judged from its texture, objects and Bragg spots."),), ()),
)
def measure_quality(micrograph: Micrograph, acquisition: Acquisition, ctx: Context) -> MicrographQuality:
    """Measure what a micrograph looks like, and name its kind: empty, bare or crystalline ice, film, dirt, or with particles.

    The sum without dose weighting is used where there is one, for its Bragg spots. Without a pixel size there are none to look
    for; with pixel size and dose, dark objects must also take a part of the beam.

    Raises
    ------
    ItemError
        If the image is too small, or shows nothing.
    """
    ref = micrograph.unweighted or micrograph.image
    image = read_image(ctx.path(ref))  # (h, w)
    pixel_ang = acquisition.pixel_size_ang * micrograph.bin if acquisition.pixel_size_ang is not None else None
    whole_dose = micrograph.dose_e_per_ang2(acquisition)
    try:
        features, maps = measure_features_2d(image, pixel_size_ang=pixel_ang, dose_e_per_ang2=whole_dose)
    except ValueError as error:
        raise ItemError(f"{ref}: cannot be judged: {error}") from error
    judged = judge_micrograph(features)
    with ctx.publish("_quality.png") as out:
        write_rgb(out.path, draw_maps(maps))
    return _record(features, judged, picture=out.ref)


def _record(features: MicrographFeatures, judged: Judgement, *, picture: FileRef) -> MicrographQuality:
    numbers = {name: None if value is None else round(value, _DIGITS) for name, value in asdict(features).items()}
    probability = {kind: round(value, _DIGITS) for kind, value in judged.probability.items()}
    return MicrographQuality.model_validate(
        {
            **numbers,
            "kind": judged.kind,
            "score": round(judged.score, _DIGITS),
            "probability": probability,
            "reason": judged.reason,
            "picture": picture,
        }
    )


def draw_maps(maps: MicrographMaps) -> NDArray[np.float64]:
    """Draw film in blue, dirt in red, dark particles in green, tiles with Bragg spots in yellow: ``(h', w', 3)``, 0 to 1."""
    low, high = np.percentile(maps.image, [1, 99])
    grey = np.clip((maps.image - low) / max(float(high - low), 1e-12), 0, 1)
    drawn: NDArray[np.float64] = np.repeat(grey[..., None], 3, axis=2)  # (h, w, 3)
    for name, tint in _TINTS.items():
        mask = getattr(maps, name)
        drawn[mask] = (1 - _TINT_SHARE) * drawn[mask] + _TINT_SHARE * np.array(tint)
    return drawn


@step.filter("triage", version=2)
def triage(micrograph: Micrograph, quality: MicrographQuality, ctf: CtfFit | None, params: TriageParams) -> Verdict:  # noqa: ARG001 - the micrograph is passed on
    """Keep micrographs of the kinds that are wanted; a rejection names the kind, its number and what is allowed.

    With a CTF whose confidence is at least 95 %, a micrograph is not called empty.
    """
    rules = replace_bounds(
        {"dark_share": params.max_dark_share, "film_share": params.max_film_share, "bragg_share": params.max_bragg_share}
    )
    numbers = {name: getattr(quality, name) for name in MicrographFeatures.__dataclass_fields__}
    rings_seen = ctf is not None and ctf.confidence is not None and ctf.confidence >= _CERTAIN
    judged = judge_micrograph(MicrographFeatures(**numbers), rules=rules, rings_seen=rings_seen)
    said = f"{judged.kind.replace('_', ' ')}: {judged.reason}"
    failures = []
    if judged.kind not in params.keep:
        failures.append(said)
    if params.min_score is not None and not judged.score >= params.min_score:
        failures.append(f"score {judged.score:.2f} is below {params.min_score:g}" + ("" if failures else f" ({said})"))
    return reject("; ".join(failures)) if failures else keep()
