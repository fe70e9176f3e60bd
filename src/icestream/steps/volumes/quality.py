"""How good a map is, from its half maps and the poses of its particles."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.map_quality import (
    ConicalFsc,
    FoundMask,
    LocalResolution,
    MapResolution,
    draw_local_resolution,
    draw_sections,
    draw_views,
    find_mask_3d,
    measure_conical_fsc,
    measure_coverage,
    measure_local_resolution,
    measure_resolution,
    scale_bar_ang,
    sharpen_3d,
    suggest_symmetry,
)
from icestream.algorithms.volumes import rotations_from_angles, symmetry_group
from icestream.flow import Angstrom, Context, Field, ItemError, Params, step
from icestream.io.image import image_header, read_stack, write_mrc
from icestream.io.preview import write_rgb
from icestream.records import CHEN_2013, NAYDENOVA_2017, ROSENTHAL_2003, FileRef, MapQuality, Method, SymmetryScore, Text, Volume

_REASONS = {
    "noise": "the half maps agree in nothing but what chance, a common mask or a radial profile explains",
    "not_independent": "the half maps are the same up to noise far too small; they must come from separate particles",
    "pixel_limit": "the half maps agree up to the finest detail that their pixels can hold; smaller pixels may show more",
}
_BEYOND = 0.8
"""Local resolution is looked for down to this part of the resolution of the whole map."""


class MapQualityParams(Params):
    """How a map is post-processed, and what is looked for."""

    smooth_ang: Angstrom = Field(20.0, gt=0, description="The mask is found in the map smoothed to this resolution")
    b_factor_ang2: float | None = Field(
        None, le=0, description="B factor to sharpen with, Å², negative; unset: fitted where the map is finer than 10 Å"
    )
    local_resolution: bool = Field(True, description="Measure how the resolution varies within the map")
    look_for_symmetry: bool = Field(True, description="Look for point groups that the half maps bear out")
    most_order: int = Field(12, ge=2, le=20, description="Highest order of an axis that is looked for")


@step.map(
    "map_quality",
    version=1,
    memory_gb=4.0,
    method=Method(
        (
            Text("The resolution of maps was measured by the Fourier shell correlation of half maps, corrected for the mask."),
            Text("The distribution of views was judged by its efficiency and by correlations within cones."),
        ),
        (ROSENTHAL_2003, CHEN_2013, NAYDENOVA_2017),
    ),
)
def measure_map_quality(volume: Volume, params: MapQualityParams, ctx: Context) -> MapQuality:
    """Measure how good a map is, and post-process it.

    The particle is found by itself. The resolution is that of the half maps, corrected for the mask, with error bars; halves that
    agree in nothing but noise get none, and neither does a volume whose own verdict is "none": halves that followed one reference
    agree by that. The map is sharpened and weighted by the agreement of its halves. Local resolution, the distribution of views
    and a suggested symmetry are told beside it.

    Raises
    ------
    ItemError
        The volume has no two half maps, or they have no size of a voxel or no variation.
    """
    halves, pixel_ang = _read_halves(volume, ctx)
    try:
        found = find_mask_3d(*halves, pixel_size_ang=pixel_ang, smooth_ang=params.smooth_ang)
    except ValueError as error:
        raise ItemError(f"{volume.half_maps[0]}: {error}") from error
    group = symmetry_group(volume.symmetry)
    measured = measure_resolution(*halves, found.mask, pixel_size_ang=pixel_ang, symmetry_order=len(group), seed=ctx.seed)
    refused: dict[str, Any] = {}
    if volume.verdict == "none":
        measured = replace(measured, verdict="noise", resolution_ang=None, resolution_half_ang=None, range_ang=None)
        refused = {"reason": volume.reason or _REASONS["noise"]}
    ctx.progress(0.3, "resolution")
    parts = _Parts(halves, found, measured, pixel_ang)
    fields = {**_describe_resolution(measured), **refused, **_publish_map(parts, params, ctx)}
    if measured.resolution_ang is not None:
        ctx.progress(0.5, "local resolution")
        fields |= _describe_local(parts, ctx) if params.local_resolution else {}
        fields |= _describe_cones(measure_conical_fsc(*halves, found.mask, pixel_size_ang=pixel_ang))
        ctx.progress(0.7, "symmetry")
        fields |= _suggest(parts, params, ctx) if params.look_for_symmetry else {}
    fields |= _describe_views(volume, group, parts, ctx)
    return MapQuality(
        count=volume.count,
        version=volume.version,
        box_px=len(halves[0]),
        pixel_size_ang=pixel_ang,
        symmetry=volume.symmetry,
        diameter_ang=round(found.diameter_ang, 1),
        bar_ang=scale_bar_ang(len(halves[0]) * pixel_ang),
        **fields,
    )


@dataclass(frozen=True)
class _Parts:
    """What everything else is made from."""

    halves: tuple[NDArray[np.float32], NDArray[np.float32]]
    found: FoundMask
    measured: MapResolution
    pixel_ang: float

    @property
    def mean(self) -> NDArray[np.float32]:
        """The mean of the halves."""
        return 0.5 * (self.halves[0] + self.halves[1])


def _read_halves(volume: Volume, ctx: Context) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], float]:
    """Return both half maps and the size of their voxels."""
    if len(volume.half_maps) != 2:
        raise ItemError(f"{volume.map}: has {len(volume.half_maps)} half maps; its quality is measured from two")
    paths = [ctx.path(ref) for ref in volume.half_maps]
    pixel_ang = volume.pixel_size_ang or image_header(paths[0]).pixel_size_ang
    if not pixel_ang:
        raise ItemError(f"{volume.half_maps[0]}: has no size of a voxel in its header")
    one, other = (np.asarray(read_stack(path), dtype=np.float32) for path in paths)
    return (one, other), float(pixel_ang)


def _describe_resolution(measured: MapResolution) -> dict[str, Any]:
    coarse, fine = measured.range_ang or (None, None)
    return {
        "verdict": measured.verdict,
        "reason": _REASONS.get(measured.verdict),
        "evidence": round(measured.evidence, 2),
        "resolution_ang": _round(measured.resolution_ang),
        "resolution_half_ang": _round(measured.resolution_half_ang),
        "resolution_coarse_ang": _round(coarse),
        "resolution_fine_ang": _round(fine),
        "frequency_per_ang": _rounded(measured.frequency_per_ang, 6),
        "fsc": _rounded(measured.fsc, 4),
        "fsc_error": _rounded(measured.error, 4),
        "fsc_masked": _rounded(measured.masked, 4),
        "fsc_unmasked": _rounded(measured.unmasked, 4),
        "fsc_randomised": _rounded(measured.randomised, 4),
    }


def _publish_map(parts: _Parts, params: MapQualityParams, ctx: Context) -> dict[str, Any]:
    """Publish the mask, the sharpened map if there is one, and a picture of it or of the mean of the halves."""
    measured, pixel_ang = parts.measured, parts.pixel_ang
    shown, ref, b_factor = parts.mean, None, None
    if measured.resolution_ang is not None:
        sharp = sharpen_3d(
            *parts.halves,
            measured.fsc,
            pixel_size_ang=pixel_ang,
            resolution_ang=measured.resolution_ang,
            b_factor_ang2=params.b_factor_ang2,
        )
        ref, b_factor = _publish_volume("_postprocessed.mrc", sharp.volume, pixel_ang, ctx), sharp.b_factor_ang2
        shown = sharp.volume * parts.found.mask
    with ctx.publish("_sections.png") as picture:
        write_rgb(picture.path, draw_sections(shown, pixel_size_ang=pixel_ang))
    return {
        "map": ref,
        "mask": _publish_volume("_mask.mrc", parts.found.mask, pixel_ang, ctx),
        "picture": picture.ref,
        "b_factor_ang2": None if b_factor is None else round(b_factor, 1),
    }


def _describe_local(parts: _Parts, ctx: Context) -> dict[str, Any]:
    """Measure and publish local resolution."""
    finest = _BEYOND * float(parts.measured.resolution_ang or 0)
    local: LocalResolution = measure_local_resolution(
        *parts.halves, parts.found.mask, pixel_size_ang=parts.pixel_ang, finest_ang=finest
    )
    fine, _, median, _, coarse = local.percentiles_ang
    with ctx.publish("_local.png") as picture:
        drawn = draw_local_resolution(parts.mean * parts.found.mask, local.resolution_ang, limits_ang=(fine, coarse))
        write_rgb(picture.path, drawn)
    return {
        "local_resolution": _publish_volume("_local.mrc", np.nan_to_num(local.resolution_ang, nan=0.0), parts.pixel_ang, ctx),
        "local_picture": picture.ref,
        "local_fine_ang": _round(fine),
        "local_median_ang": _round(median),
        "local_coarse_ang": _round(coarse),
    }


def _describe_cones(cones: ConicalFsc) -> dict[str, Any]:
    known = cones.resolution_ang[np.isfinite(cones.resolution_ang)]
    return {
        "area_ratio": round(cones.area_ratio, 3),
        "best_cone_ang": _round(float(known.min())) if known.size else None,
        "worst_cone_ang": _round(float(known.max())) if known.size == cones.resolution_ang.size else None,
    }


def _suggest(parts: _Parts, params: MapQualityParams, ctx: Context) -> dict[str, Any]:
    """Look for point groups."""
    suggested = suggest_symmetry(*parts.halves, parts.found.mask, parts.measured.fsc, most_order=params.most_order, seed=ctx.seed)
    groups = [
        SymmetryScore(
            group=one.group.name,
            agreement=round(one.agreement, 3),
            least_agreement=round(one.least_agreement, 3),
            z=round(one.z, 1),
            accepted=one.accepted,
        )
        for one in suggested.scores
    ]
    return {"suggested_symmetry": suggested.name, "subgroups": list(suggested.subgroups), "groups": groups}


def _describe_views(volume: Volume, group: NDArray[np.float64], parts: _Parts, ctx: Context) -> dict[str, Any]:
    """Measure and draw how evenly the views of the particles cover the map."""
    tables = [np.load(ctx.path(ref), allow_pickle=False) for ref in volume.tables]
    rows = [np.stack([table[name] for name in ("rot_deg", "tilt_deg", "psi_deg")], axis=1) for table in tables if len(table)]
    if not rows:
        return {}
    views = rotations_from_angles(np.concatenate(rows))[:, 2]  # (n, 3): the beam in the frame of the map
    details = parts.found.diameter_ang / (parts.measured.resolution_ang or 4 * parts.pixel_ang)
    coverage = measure_coverage(views, operations=group, details=max(details, 5.0))
    with ctx.publish("_views.png") as picture:
        write_rgb(picture.path, draw_views(np.einsum("gij,nj->gni", group, views).reshape(-1, 3)))
    return {"efficiency": round(coverage.efficiency, 3), "views_picture": picture.ref}


def _publish_volume(suffix: str, volume: NDArray[np.float32], pixel_ang: float, ctx: Context) -> FileRef:
    with ctx.publish(suffix) as out:
        write_mrc(out.path, np.asarray(volume, dtype=np.float32), pixel_size_ang=pixel_ang)
    return out.ref


def _round(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, 2)


def _rounded(values: NDArray[np.float64], digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]
