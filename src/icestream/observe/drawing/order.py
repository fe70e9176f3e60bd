"""What is to be drawn: everything that the worker needs, named by keys of results, so that one order always gives one picture."""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from icestream.errors import SessionError
from icestream.io.pyramid import TILE_PX
from icestream.records import Cutting

_DRAWN_AS = 1
"""How drawings are made; a change of that, or of the size of tiles, gives every order another name."""


class NothingToDraw(SessionError):
    """There is no such picture, and there will be none: the reason is for people."""


class NotDrawn(SessionError):
    """It could not be drawn at this moment: too much is asked for, or it took too long, or too much memory."""


class Order(BaseModel):
    """What all orders have: the roots of the session, which no file may lead out of."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    roots: dict[str, str]

    @property
    def name(self) -> str:
        """What a drawing is called for good: a digest of its order."""
        said = f"{_DRAWN_AS} {TILE_PX} {self.model_dump_json()}"
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


class MicrographOrder(Order):
    """An image in full resolution, as tiles."""

    kind: Literal["micrograph"] = "micrograph"
    key: str = Field(description="Of the record that names the image")
    image: str = Field(description="The file, as the record names it")

    @property
    def files(self) -> list[str]:
        """The files that it is drawn from."""
        return [self.image]


class ParticleImages(BaseModel):
    """Some particles of one record: where their images are, and their rows of its table (``.npy``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    key: str
    stack: str | None
    micrograph: str | None
    cutting: Cutting | None
    rows: bytes

    @property
    def file(self) -> str:
        """The file that their images are in, or are cut from."""
        return self.stack or self.micrograph or ""


class MosaicOrder(Order):
    """Images of particles side by side, in the order that is given."""

    kind: Literal["mosaic"] = "mosaic"
    parts: tuple[ParticleImages, ...] = Field(min_length=1)
    in_a_row: int = Field(ge=1, le=100)

    @property
    def files(self) -> list[str]:
        """The files that it is drawn from."""
        return [one.file for one in self.parts]


DENSITY_PX = 64
"""Side of the cube as which a map is sent: 262 kB."""


class DensityOrder(Order):
    """A map in three dimensions, reduced to a small cube that a browser can turn."""

    kind: Literal["density"] = "density"
    key: str = Field(description="Of the record that names the map")
    map: str = Field(description="The file, as the record names it")
    side: int = Field(ge=8, le=DENSITY_PX, description="Voxels along each edge of the cube, at most; even")

    @property
    def files(self) -> list[str]:
        """The files that it is drawn from."""
        return [self.map]


AnyOrder = MicrographOrder | MosaicOrder | DensityOrder


class Task(BaseModel):
    """What a worker is sent: an order, the file that it writes, and the seconds after which it ends itself."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    order: AnyOrder = Field(discriminator="kind")
    to: str
    limit_s: int = Field(ge=1)


class Answer(BaseModel):
    """What a worker says: nothing is wrong, or what is. ``passing``: it may be drawn another time."""

    model_config = ConfigDict(frozen=True)

    trouble: str | None = None
    passing: bool = False
    missing: bool = False
    """A file is not there."""
