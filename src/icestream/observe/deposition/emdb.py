"""A map for the EMDB: map, half maps, mask, shell correlation as XML, and the values that the deposition asks for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from icestream import __version__
from icestream.errors import SessionError
from icestream.files import publish_text
from icestream.flow.declaration import resolve_ref
from icestream.io.image import image_header
from icestream.observe.conditions import read_conditions
from icestream.observe.deposition.packing import begin_package, copy_into, write_checksums
from icestream.observe.queries import SessionView, StoredSnapshot

_QUALITY = "MapQuality"


def write_emdb_package(view: SessionView, step: str, folder: Path, *, version: int | None = None) -> list[str]:
    """Write what the EMDB asks for of one map; return what people should know.

    Where `map_quality` has judged this version of the map, its sharpened map, mask and corrected shell correlation are taken.

    Parameters
    ----------
    step
        The step that made the map, with half maps.
    version
        Of its versions; unset: the newest.

    Raises
    ------
    SessionError
        There is no such version, it has no half maps or is no map, its files differ in size or are gone; the folder is not empty.
    """
    volume, record = _choose(view, step, version)
    quality = _quality_of(view, step, volume.version, record)
    chosen: Mapping[str, Any] = record if quality is None else quality
    refs = {"emd_map.mrc": chosen.get("map") or record["map"]}
    refs |= {f"emd_half_map_{number}.mrc": ref for number, ref in enumerate(record["half_maps"], 1)}
    if chosen.get("mask"):
        refs["emd_mask_1.mrc"] = chosen["mask"]
    files = {name: resolve_ref(view.session.roots, ref) for name, ref in refs.items()}
    begin_package(folder)
    for name, path in files.items():
        copy_into(path, folder / name)
    notes = _check_sizes(folder, list(files))
    curves = {"emd_fsc.xml": "fsc", "emd_fsc_unmasked.xml": "fsc_unmasked"}
    for name, curve in curves.items():
        if chosen.get(curve):
            title = "Half maps, within the mask" if curve == "fsc" else "Half maps, without a mask"
            publish_text(folder / name, fsc_xml(chosen["frequency_per_ang"], chosen[curve], title=title))
    if not chosen.get("fsc"):
        notes.append("the map has no shell correlation, which the EMDB asks for")
    if quality is None:
        notes.append(
            "no step has judged this map: it is not sharpened, and its correlation is not corrected for the mask (map_quality)"
        )
    publish_text(folder / "emdb.json", json.dumps(_values(view, volume, record, chosen), indent=1) + "\n")
    write_checksums(folder)
    return notes


def _choose(view: SessionView, step: str, version: int | None) -> tuple[StoredSnapshot, dict[str, Any]]:
    versions = [one for one in view.snapshots(step) if one.record is not None and not one.pruned]
    found = next((one for one in versions if version in (None, one.version)), None)
    if found is None or found.record is None:
        there = ", ".join(str(one.version) for one in reversed(versions)) or "none"
        raise SessionError(f"{step}: has no version {version or 'yet'} of a map; there are {there}")
    if len(found.record.get("half_maps") or []) != 2:
        raise SessionError(f"{step}: its results have no two half maps, which the EMDB asks for; name a step such as refine3d")
    if found.record.get("verdict") == "none":
        raise SessionError(f"{step}: version {found.version} is no map: {found.record.get('reason') or 'noise gives the same'}")
    return found, found.record


def _quality_of(view: SessionView, step: str, version: int, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a later step says of this version of a map."""
    for name in view.order:
        if step not in view.inputs(name):
            continue
        for one in view.snapshots(name):
            mine = one.record is not None and one.record_type == _QUALITY and not one.pruned
            if mine and one.record is not None and one.record.get("version") in (version, record.get("version")):
                return one.record if one.record.get("map") else None
    return None


def _check_sizes(folder: Path, names: Sequence[str]) -> list[str]:
    headers = {name: image_header(folder / name) for name in names}
    sizes = {(one.n_images, one.height_px, one.width_px) for one in headers.values()}
    if len(sizes) > 1:
        told = ", ".join(f"{name} {one.width_px} x {one.height_px} x {one.n_images}" for name, one in headers.items())
        raise SessionError(f"the files differ in size, which the EMDB refuses: {told}")
    scales = {None if one.pixel_size_ang is None else round(one.pixel_size_ang, 4) for one in headers.values()}
    return [] if len(scales) == 1 and None not in scales else ["the files state different voxel sizes, or none"]


def fsc_xml(frequency_per_ang: Sequence[float], correlation: Sequence[float], *, title: str) -> str:
    """Return a shell correlation as the EMDB takes it: points of spatial frequency in 1/Å and correlation."""
    root = ElementTree.Element("fsc", title=title, xaxis="Resolution (A-1)", yaxis="Correlation Coefficient")
    for x, y in zip(frequency_per_ang, correlation, strict=True):
        point = ElementTree.SubElement(root, "coordinate")
        ElementTree.SubElement(point, "x").text = f"{x:.6f}"
        ElementTree.SubElement(point, "y").text = f"{y:.6f}"
    ElementTree.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _values(view: SessionView, volume: StoredSnapshot, record: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    microscope = {one.name: one.value for one in read_conditions(view) if one.value is not None}
    return {
        "session": view.session.document.name,
        "step": volume.step,
        "version": volume.version,
        "key": volume.key,
        "resolution_ang": chosen.get("resolution_ang"),
        "resolution_method": "FSC 0.143 CUT-OFF",
        "number_of_particles": record.get("count"),
        "applied_symmetry": record.get("symmetry"),
        "sharpening_b_factor_ang2": chosen.get("b_factor_ang2"),
        "microscope": microscope,
        "software": {"name": "icestream", "version": __version__},
    }
