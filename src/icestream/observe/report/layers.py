"""The folders that templates come from: the session's, the facility's and ours, the first that has a file taking precedence.

Nothing is read outside these folders, whatever a template asks for and wherever a link in one leads.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

SESSION_TEMPLATES = "report-templates"
"""The folder of a session in which it has templates of its own; they are used where the facility allows them."""

OURS = Path(__file__).parents[1] / "templates"
DENSITY_SCRIPT = OURS / "density.js"
"""Turns maps in three dimensions, in the report and in the pages."""
LARGEST_FILE_BYTES = 1 << 20

_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"<svg": "image/svg+xml",
    b"<?xml": "image/svg+xml",
}


@dataclass(frozen=True)
class Layer:
    """One folder of templates, and whose it is."""

    owner: Literal["session", "facility", "icestream"]
    folder: Path

    def find(self, name: str) -> Path | None:
        """Return the file of that name; None if there is none.

        Raises
        ------
        ValueError
            The name, or a link, leads out of the folder.
        """
        parts = PurePosixPath(name)
        if "\0" in name or "\\" in name or parts.is_absolute() or ".." in parts.parts:
            raise ValueError(f"{name!r} leads out of the folder of templates")
        path = self.folder / parts
        if not path.is_file():
            return None
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError(f"{name!r} is a link that leads out of the folder of templates")
        return path

    def read(self, path: Path) -> bytes:
        """Return what a file says.

        Raises
        ------
        ValueError
            It cannot be read, or is too large.
        """
        try:
            with path.open("rb") as handle:
                content = handle.read(LARGEST_FILE_BYTES + 1)
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from None
        if len(content) > LARGEST_FILE_BYTES:
            raise ValueError("is larger than 1 MiB")
        return content

    def read_text(self, path: Path) -> str:
        """Return the text of a file, `ValueError` if it is none."""
        try:
            return self.read(path).decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("is not UTF-8 text") from None


def make_layers(session_folder: Path | None, facility_folder: Path | None) -> tuple[Layer, ...]:
    """Return the folders that there are, those that take precedence first; ours is the last.

    Without ``session_folder`` the templates that a session brings are not used.
    """
    own = None if session_folder is None else session_folder / SESSION_TEMPLATES
    layers = [Layer("session", own)] if own is not None and own.is_dir() else []
    layers += [Layer("facility", facility_folder)] if facility_folder is not None else []
    return (*layers, Layer("icestream", OURS))


def embed_picture(layers: Sequence[Layer], name: str) -> str:
    """Return a picture of the first folder that has it as a ``data:`` address: PNG, JPEG or SVG.

    Raises
    ------
    ValueError
        There is none of that name, it is none of these kinds, or it is too large.
    """
    for layer in layers:
        path = layer.find(name)
        if path is not None:
            content = layer.read(path)
            kind = next((kind for start, kind in _PICTURES.items() if content.lstrip().startswith(start)), None)
            if kind is None:
                raise ValueError(f"{path} is neither PNG, JPEG nor SVG")
            return f"data:{kind};base64,{b64encode(content).decode('ascii')}"
    raise ValueError(f"there is no picture {name!r} in {' or '.join(str(layer.folder) for layer in layers[:-1]) or 'any folder'}")
