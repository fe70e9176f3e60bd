"""Links to raw data in the folders that other programs read: they follow when the data, or the session, are moved."""

import os
from collections.abc import Collection
from pathlib import Path

EXPORTS = "exports"


def mend_exported_links(session_folder: Path, *, old_root: Path, new_root: Path, known: Collection[str]) -> int:
    """Point the links below ``exports`` that led into a root of raw data to where the root is now; return how many changed.

    A link leads into the root if its target is below ``old_root`` or, because the session was moved and its links are relative,
    ends in the name of a file that is known there.

    Parameters
    ----------
    known
        Names of files relative to the root.
    """
    changed = 0
    for folder, folders, files in os.walk(session_folder / EXPORTS):
        for name in (*files, *folders):
            link = Path(folder, name)
            if not link.is_symlink():
                continue
            written = link.readlink()
            relative = _name_in_root(Path(os.path.normpath(Path(folder).resolve() / written)), old_root, known)
            if relative is None:
                continue
            target = new_root / relative
            wanted = target if written.is_absolute() else Path(os.path.relpath(target, Path(folder).resolve()))
            if wanted != written:
                _replace_link(link, wanted)
                changed += 1
    return changed


def _name_in_root(target: Path, old_root: Path, known: Collection[str]) -> Path | None:
    if target.is_relative_to(old_root):
        return target.relative_to(old_root)
    if target.exists():
        return None
    tails = (Path(*target.parts[start:]) for start in range(1, len(target.parts)))
    return next((tail for tail in tails if tail.as_posix() in known), None)


def _replace_link(link: Path, target: Path) -> None:
    temporary = link.with_name(f".{link.name}.relinked")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
