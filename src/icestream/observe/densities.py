"""Maps in three dimensions inside a page that needs no server: drawn as small cubes by the process that draws, and packed."""

import zlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from icestream.errors import FileFormatError
from icestream.io.density import read_density
from icestream.observe.drawing.order import DENSITY_PX, DensityOrder, NotDrawn, NothingToDraw
from icestream.observe.drawing.studio import Studio, open_studio
from icestream.observe.values import field_at
from icestream.settings import Settings

MOST = 4
"""So many maps are in one page; each takes up to 350 kB there."""


@dataclass
class DensityEmbedder:
    """Embeds maps until a page has enough; the process that draws is started for a map that was not drawn before.

    Without ``studio`` one is opened for the first map; `close` ends it.
    """

    roots: dict[str, str]
    studio: Studio | None = None
    left: int = MOST

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.studio is not None:
            self.studio.close()

    def embed(self, record: Mapping[str, Any], key: str, path: str) -> str | None:
        """Return a map, packed (zlib, base64); None where the page has enough, or it cannot be drawn now: the picture stays."""
        ref = field_at(record, path)
        if self.left == 0 or not key or not ref:
            return None
        self.studio = self.studio or open_studio(Settings())
        order = DensityOrder(roots=self.roots, key=key, map=str(ref), side=DENSITY_PX)
        try:
            content = read_density(self.studio.draw(order))
        except (NotDrawn, NothingToDraw, FileFormatError, FileNotFoundError):
            return None
        self.left -= 1
        return b64encode(zlib.compress(content, 9)).decode("ascii")
