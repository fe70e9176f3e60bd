"""Writing out the files of this folder, without losing what a facility has changed in them."""

from collections.abc import Iterator
from pathlib import Path

from icestream.files import publish_text

SHIPPED = Path(__file__).parent / "files"


def shipped_files() -> Iterator[tuple[Path, str]]:
    """Give every file: its path in the folder, and its text."""
    for path in sorted(SHIPPED.rglob("*")):
        if path.is_file():
            yield path.relative_to(SHIPPED), path.read_text(encoding="utf-8")


def write_out(folder: Path) -> dict[Path, str]:
    """Write the files, and return what became of each; one that differs stays, and ours is written beside it as ``NAME.new``."""
    said = {}
    for name, text in shipped_files():
        target = folder / name
        beside = target.with_name(f"{target.name}.new")
        if not target.exists():
            publish_text(target, text)
            said[target] = "written"
        elif target.read_text(encoding="utf-8") == text:
            beside.unlink(missing_ok=True)
            said[target] = "up to date"
        else:
            publish_text(beside, text)
            said[target] = f"left as you changed it; ours is beside it as {beside.name}"
    return said
