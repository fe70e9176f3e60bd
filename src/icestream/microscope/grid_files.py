"""What acquisition software writes of a simulated grid: EPU's squares and atlas, or SerialEM's Navigator file."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.files import publish, publish_text
from icestream.io.picture import encode_picture
from icestream.microscope.grid import FIRST_HOLE, FIRST_SQUARE, SimulatedGrid, hole_label, square_label

_SHARED = "http://schemas.datacontract.org/2004/07/Fei.SharedObjects"
_EPU = "http://schemas.datacontract.org/2004/07/Applications.Epu.Persistence"
_GENERIC = "http://schemas.datacontract.org/2004/07/System.Collections.Generic"
_SIDE_PX, _TURN_DEG, _NOISE = 720, -6.0, 7.0


def write_epu_grid(folder: Path, grid: SimulatedGrid, *, seed: int) -> None:
    """Write ``movies/Metadata/GridSquare_….dm`` of each square, and ``Atlas/Atlas.dm`` with its image, below a folder."""
    for number in range(len(grid.centres_yx_um)):
        publish_text(folder / "movies" / "Metadata" / f"GridSquare_{FIRST_SQUARE + number}.dm", _square_text(grid, number))
    view = _View(grid)
    publish_text(folder / "Atlas" / "Atlas.dm", _atlas_text(grid, view))
    with publish(folder / "Atlas" / "Atlas_1.jpg") as temporary:
        encode_picture(temporary, view.draw(grid, np.random.default_rng(seed)))


def write_navigator(folder: Path, grid: SimulatedGrid) -> None:
    """Write ``grid.nav``: a map for each square, and a point for each hole, drawn on it."""
    lines = ["AdocVersion = 2.00", "LastSavedAs = X:\\grid.nav", ""]
    for number, (y_um, x_um) in enumerate(grid.centres_yx_um):
        own = {"Color": 0, "StageXYZ": f"{x_um:.3f} {y_um:.3f} 0", "NumPts": 5, "Regis": 1, "Type": 2, "MapID": 100 + number}
        lines += [f"[Item = {square_label(number)}]", *(f"{name} = {value}" for name, value in own.items()), ""]
    for hole, (y_um, x_um) in enumerate(grid.yx_um):
        own = {"Color": 0, "StageXYZ": f"{x_um:.3f} {y_um:.3f} 0", "NumPts": 1, "Regis": 1, "Type": 0, "Acquire": 1}
        own["DrawnID"] = 100 + int(grid.square[hole])
        lines += [f"[Item = {hole_label(hole)}]", *(f"{name} = {value}" for name, value in own.items()), ""]
    publish_text(folder / "grid.nav", "\r\n".join(lines) + "\r\n")


def _square_text(grid: SimulatedGrid, number: int) -> str:
    y_um, x_um = grid.centres_yx_um[number]
    wanted = not grid.empty[number]
    targets = "".join(
        f"<b:KeyValuePairOfintTargetLocationXmlicestream><b:key>{FIRST_HOLE + hole}</b:key><b:value>"
        f"<IsNearGridBar>false</IsNearGridBar><IsPositionCorrected>false</IsPositionCorrected>"
        f"<Selected>{str(wanted).lower()}</Selected>"
        f"<StagePosition><c:X>{grid.yx_um[hole, 1] * 1e-6:.12g}</c:X><c:Y>{grid.yx_um[hole, 0] * 1e-6:.12g}</c:Y></StagePosition>"
        f"</b:value></b:KeyValuePairOfintTargetLocationXmlicestream>"
        for hole in np.flatnonzero(grid.square == number).tolist()
    )
    return (
        f'<GridSquareXml xmlns="{_EPU}" xmlns:b="{_GENERIC}" xmlns:c="{_SHARED}">'
        f"<Position><c:X>{x_um * 1e-6:.12g}</c:X><c:Y>{y_um * 1e-6:.12g}</c:Y><c:Z>0</c:Z></Position>"
        f"<TargetLocations><TargetLocationsEfficient><m_serializationArray>{targets}</m_serializationArray>"
        "</TargetLocationsEfficient></TargetLocations></GridSquareXml>"
    )


def _atlas_text(grid: SimulatedGrid, view: "_View") -> str:
    nodes = "".join(
        f"<b:KeyValuePairOfintNodeXmlicestream><b:key>{FIRST_SQUARE + number}</b:key><b:value><PositionOnTheAtlas>"
        f"<Center><c:x>{x:.2f}</c:x><c:y>{y:.2f}</c:y></Center></PositionOnTheAtlas></b:value>"
        "</b:KeyValuePairOfintNodeXmlicestream>"
        for number, (y, x) in enumerate(view.pixels(grid.centres_yx_um))
    )
    return (
        f'<AtlasSessionXml xmlns="{_EPU}" xmlns:b="{_GENERIC}" xmlns:c="{_SHARED}"><Atlas><TilesEfficient><_items><TileXml>'
        f"<AtlasPixelPosition><c:x>0</c:x><c:y>0</c:y><c:width>{_SIDE_PX}</c:width><c:height>{_SIDE_PX}</c:height>"
        f"</AtlasPixelPosition><Nodes><KeyValuePairs>{nodes}</KeyValuePairs></Nodes></TileXml></_items></TilesEfficient>"
        "</Atlas></AtlasSessionXml>"
    )


class _View:
    """How the camera sees the grid at the magnification of an atlas: turned, and with rows downwards."""

    def __init__(self, grid: SimulatedGrid) -> None:
        low, high = grid.centres_yx_um.min(axis=0), grid.centres_yx_um.max(axis=0)
        self.middle = (low + high) / 2
        self.um_per_px = float((high - low).max() + 2.2 * grid.settings.pitch_um) / _SIDE_PX
        angle = np.deg2rad(_TURN_DEG)
        turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        self.matrix = np.diag([-1.0, 1.0]) @ turned / self.um_per_px

    def pixels(self, yx_um: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where stage positions are on the image, row 0 at the top."""
        seen: NDArray[np.float64] = (yx_um - self.middle) @ self.matrix.T + _SIDE_PX / 2
        return seen

    def draw(self, grid: SimulatedGrid, generator: np.random.Generator) -> NDArray[np.uint8]:
        """Return the image, row 0 at the bottom as pictures are kept: bars are dark, squares as bright as their ice is thin."""
        axis = np.arange(_SIDE_PX) - _SIDE_PX / 2
        rows, columns = np.meshgrid(axis, axis, indexing="ij")
        stage = np.stack([rows, columns], axis=-1) @ np.linalg.inv(self.matrix).T + self.middle  # (h, w, 2)
        image = np.full((_SIDE_PX, _SIDE_PX), 30.0)
        angle = np.deg2rad(grid.settings.turn_deg)
        straight = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for number, centre in enumerate(grid.centres_yx_um):
            offset = np.abs((stage - centre) @ straight.T).max(axis=-1)
            ice_ang = float(grid.ice_ang[grid.square == number].mean())
            image[offset < 0.36 * grid.settings.pitch_um] = 60 + 160 * np.exp(-ice_ang / 900.0)
        noisy = image + generator.normal(size=image.shape) * _NOISE
        pixels: NDArray[np.uint8] = np.clip(noisy, 0, 255).astype(np.uint8)[::-1]
        return pixels
