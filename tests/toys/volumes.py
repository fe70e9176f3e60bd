"""Half maps of known truth, and a source that takes them from a folder as a volume."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.map_quality.shells import invert_3d, mean_shells, shell_radius, transform_3d
from icestream.algorithms.volumes import symmetry_group
from icestream.flow import Arrival, Params, SourceContext, Watch, step
from icestream.io.image import write_mrc
from icestream.records import Volume

BOX, PIXEL_ANG = 32, 4.0
Map = NDArray[np.float64]


def blobs(seed: int, *, group: str = "C1", count: int = 24, reach: float = 8.0) -> Map:
    """A particle of blobs, off every axis, with the symmetry of a group about z."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(count, 3)) * reach / 3 + (0 if group == "C1" else reach / 2)
    axis = np.arange(BOX) - BOX // 2
    x, y, z = axis[None, None, :], axis[None, :, None], axis[:, None, None]
    volume: Map = np.zeros((BOX, BOX, BOX))
    for weight, place in zip(rng.uniform(0.5, 1.5, count), places, strict=True):
        for copy in symmetry_group(group) @ place:
            volume += weight * np.exp(-((x - copy[0]) ** 2 + (y - copy[1]) ** 2 + (z - copy[2]) ** 2) / (2 * 1.3**2))
    return np.asarray(volume / volume.std())


def noisy(volume: Map, *, limit: float, seed: int) -> tuple[Map, Map]:
    """Halves whose correlation falls to 0.143 at a shell."""
    rng = np.random.default_rng(seed)
    spectrum = transform_3d(volume)
    power = mean_shells(np.abs(spectrum) ** 2, box_px=BOX)
    shells = np.arange(len(power))
    spread = np.interp(shell_radius(BOX), shells, np.sqrt(power * 6 * (shells / limit) ** 6 / BOX**3))
    halves = [invert_3d(spectrum + transform_3d(rng.standard_normal(volume.shape)) * spread, box_px=BOX) for _ in range(2)]
    return halves[0].astype(np.float64), halves[1].astype(np.float64)


def write_volume(folder: Path, halves: tuple[Map, Map], *, root: str = "session", tables: tuple[str, ...] = ()) -> Volume:
    """Write half maps and their mean into a folder, and return their record."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, volume in (("half1", halves[0]), ("half2", halves[1]), ("mean", 0.5 * (halves[0] + halves[1]))):
        write_mrc(folder / f"{name}.mrc", volume.astype(np.float32), pixel_size_ang=PIXEL_ANG, remember=False)
    return Volume(
        map=f"{root}:mean.mrc",
        half_maps=[f"{root}:half1.mrc", f"{root}:half2.mrc"],
        count=1000,
        box_px=BOX,
        bin=1.0,
        tables=[f"{root}:{name}" for name in tables],
    )


class HalfMapParams(Params):
    """Nothing to set."""


@step.source("toy_half_maps", version=1, output=Volume)
def take_volume(params: HalfMapParams, ctx: SourceContext) -> Watch:
    """Take the volume that ``volume.json`` in the folder ``maps`` describes."""
    stored = json.loads((ctx.path("maps:.") / "volume.json").read_text(encoding="utf-8"))
    yield Arrival(identity="volume", name="volume", record=Volume.model_validate(stored))
    return "it came"
