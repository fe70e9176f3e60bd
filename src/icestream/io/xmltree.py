"""Small XML documents of acquisition software, parsed without giving a hostile one a chance."""

from pathlib import Path
from xml.etree import ElementTree as ET

from icestream.errors import FileFormatError, SourceGone

MAX_XML_BYTES = 16 * 2**20


def parse_xml(path: Path, text: bytes) -> ET.Element:
    """Parse ``text`` that came from ``path``; document type declarations (and so entities) are refused.

    Names are returned without their namespace.
    """
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        if "<!DOCTYPE".encode(encoding) in text or "<!ENTITY".encode(encoding) in text:
            raise FileFormatError(path, "XML with a document type declaration is refused")
    try:
        root = ET.fromstring(text)  # noqa: S314 - no document type, so no entity can expand
    except (ET.ParseError, ValueError, LookupError) as error:
        raise FileFormatError(path, f"not well-formed XML: {error}") from error
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    return root


def read_small(path: Path) -> bytes:
    """Return the content of a sidecar; one that is empty or larger than any sidecar is refused."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise SourceGone(f"{path}: the file is not there") from None
    if not 0 < size <= MAX_XML_BYTES:
        raise FileFormatError(path, f"a sidecar has 1 to {MAX_XML_BYTES} bytes, this one has {size}")
    return path.read_bytes()


def finite(text: str | None) -> float | None:
    """Return ``text`` as a finite number, or None."""
    try:
        value = float(text) if text is not None else float("nan")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


class Numbers:
    """Reads numbers out of a file's texts, and notes those that are none."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.notes: list[str] = []

    def read(self, name: str, text: str | None, factor: float = 1.0) -> float | None:
        """Return a number times ``factor``; None where there is no text, or none that is a number."""
        value = finite(text)
        if value is None and text is not None and text.strip():
            self.notes.append(f"{self.origin} gives {name} as {text.strip()[:40]!r}, which is no number")
        return None if value is None else value * factor


def positive(value: float | None, factor: float = 1.0) -> float | None:
    """Return ``value * factor`` if that is a positive number, else None (programs write 0 for unknown)."""
    return value * factor if value is not None and 0 < value * factor < float("inf") else None
