"""Pictures that steps have published, embedded as they are: recognised by their first bytes, never decoded here."""

from base64 import b64encode
from dataclasses import dataclass, field

from icestream.errors import IcestreamError
from icestream.flow.declaration import resolve_ref

LARGEST_BYTES = 4_000_000
MOST_BYTES = 32_000_000

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True)
class Picture:
    """A picture as a ``data:`` address, or why there is none."""

    uri: str | None
    note: str | None = None


@dataclass
class PictureEmbedder:
    """Embeds pictures until a page has enough."""

    roots: dict[str, str]
    left_bytes: int = MOST_BYTES
    known: dict[str, Picture] = field(default_factory=dict)

    def embed(self, ref: str | None) -> Picture:
        """Return the picture behind a file reference."""
        if ref is None:
            return Picture(None, "no picture was made")
        if ref not in self.known:
            self.known[ref] = self._read(ref)
        return self.known[ref]

    def _read(self, ref: str) -> Picture:
        try:
            path = resolve_ref(self.roots, ref)
            size = path.stat().st_size
            if size > min(LARGEST_BYTES, self.left_bytes):
                return Picture(None, f"the picture is {size / 1e6:.1f} MB, too large for this page")
            with path.open("rb") as handle:
                content = handle.read(LARGEST_BYTES + 1)
        except OSError as error:
            return Picture(None, f"the picture cannot be read: {error.strerror}")
        except IcestreamError as error:
            return Picture(None, str(error))
        kind = next((kind for signature, kind in _SIGNATURES.items() if content.startswith(signature)), None)
        if kind is None:
            return Picture(None, "the file is neither PNG nor JPEG")
        self.left_bytes -= len(content)
        return Picture(f"data:{kind};base64,{b64encode(content).decode('ascii')}")
