"""cryoSPARC's ``.cs`` files: NumPy tables, whose columns a second, "passthrough" file may complete, joined by ``uid``."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from icestream.errors import FileFormatError, SourceGone
from icestream.io.blocks import from_block

_COMPRESSED = b"\x94CSDAT"
_ARCHIVE = b"PK\x03\x04"
_PASSTHROUGH = "_passthrough_"
_JOB = re.compile(r"(?:^|_)(J\d+)_")


def read_cs(path: Path, *passthrough: Path) -> NDArray[Any]:
    """Return the rows of a ``.cs`` file ``(n,)``, in their order, with the columns that only passthrough files have.

    Parameters
    ----------
    passthrough
        Files of the same job with further columns: rows are found by ``uid``, whatever their order; further rows are left out.

    Raises
    ------
    FileFormatError
        It is no such file, is cut short, names a row twice, or a passthrough file lacks some of its rows.
    SourceGone
        It is not there.
    """
    rows = _read(path)
    for further in passthrough:
        rows = _join(path, rows, further, _read(further))
    return rows


def read_cs_job(path: Path) -> NDArray[Any]:
    """Return the rows of a ``.cs`` file, completed by the passthrough file of its job beside it, or of the files of a ``.csg``.

    Of ``cryosparc_P1_J24_006_particles.cs``, ``J24_006_particles.cs`` or ``particles.cs`` that is
    ``J24_passthrough_particles.cs``, whatever stands before the job.

    Raises
    ------
    FileFormatError
        As `read_cs`; or two passthrough files may be meant.
    SourceGone
        A file is not there.
    """
    if path.suffix.lower() == ".csg":
        return read_cs(*_files_of_group(path))
    if _PASSTHROUGH in path.name:
        return read_cs(path)
    job = _JOB.search(path.stem)
    meant = []
    for other in sorted(path.parent.glob(f"*{_PASSTHROUGH}*.cs")):
        before, _, group = other.stem.partition(_PASSTHROUGH)
        others_job = _JOB.search(f"{before}_")
        fits = path.stem == group or path.stem.endswith(f"_{group}")
        if fits and (job is None or others_job is None or job[1] == others_job[1]):
            meant.append(other)
    if len(meant) > 1:
        raise FileFormatError(
            path, f"several passthrough files may be meant: {', '.join(one.name for one in meant)}; name its .csg"
        )
    return read_cs(path, *meant)


def _files_of_group(path: Path) -> list[Path]:
    """Return the files of a result group, those with the images first."""
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SourceGone(f"{path}: there is no such file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileFormatError(path, "not a result group of cryoSPARC: it is no YAML") from error
    results = said.get("results") if isinstance(said, dict) else None
    if not isinstance(results, dict) or not results:
        raise FileFormatError(path, "not a result group of cryoSPARC: it lists no results")
    order = sorted(results, key=lambda name: (name not in ("blob", "micrograph_blob"), name))
    names = [str(results[name].get("metafile", "")).removeprefix(">") for name in order if isinstance(results[name], dict)]
    files = list(dict.fromkeys(name for name in names if name))
    if not files or any(Path(name).name != name for name in files):
        raise FileFormatError(path, "not a result group that was exported: its files are not beside it")
    return [path.parent / name for name in files]


def _read(path: Path) -> NDArray[Any]:
    try:
        stored = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise SourceGone(f"{path}: there is no such file") from error
    if stored.startswith(_COMPRESSED):
        raise FileFormatError(path, "is in the compressed form of cryosparc-tools; save it as a NumPy table (format 1) there")
    if stored.startswith(_ARCHIVE):
        raise FileFormatError(path, "is an archive (.npz or .zip), not one table")
    try:
        rows = from_block(stored)
    except ValueError as error:
        raise FileFormatError(path, f"not a .cs file: {error}") from error
    if "uid" in (rows.dtype.names or ()) and len(np.unique(rows["uid"])) < len(rows):
        raise FileFormatError(path, "names a row twice (uid)")
    return rows


def _join(path: Path, rows: NDArray[Any], further: Path, others: NDArray[Any]) -> NDArray[Any]:
    names = rows.dtype.names or ()
    new = [name for name in others.dtype.names or () if name not in names]
    for where, table in ((path, rows), (further, others)):
        if "uid" not in (table.dtype.names or ()):
            raise FileFormatError(where, "has no column uid, by which passthrough files are joined")
    order = np.argsort(others["uid"], kind="stable")
    places = np.searchsorted(others["uid"], rows["uid"], sorter=order)
    found = order[np.minimum(places, len(order) - 1)] if len(order) else np.zeros(len(rows), dtype=np.int64)
    known = others["uid"][found] == rows["uid"] if len(order) else np.zeros(len(rows), dtype=bool)
    if not known.all():
        raise FileFormatError(
            further, f"lacks {int((~known).sum())} of the {len(rows)} rows of {path.name}: it is of another job"
        )
    joined = np.empty(len(rows), dtype=[*((n, rows.dtype[n]) for n in names), *((n, others.dtype[n]) for n in new)])
    for name in names:
        joined[name] = rows[name]
    for name in new:
        joined[name] = others[name][found]
    return joined


def texts_of(column: NDArray[Any]) -> list[str]:
    """Return a column of texts; a path loses the ``>`` by which newer versions mark one within the project."""
    plain = [one.decode("utf-8", errors="replace") if isinstance(one, bytes) else str(one) for one in column.tolist()]
    return [one.removeprefix(">") for one in plain]


def first_column(rows: NDArray[Any], names: Sequence[str]) -> NDArray[np.float64] | None:
    """Return the first of some columns that a table has, as numbers."""
    known = rows.dtype.names or ()
    return next((rows[name].astype(np.float64) for name in names if name in known), None)


def write_cs(path: Path, columns: Sequence[tuple[str, NDArray[Any]]]) -> None:
    """Write columns ``(n, …)`` as a ``.cs`` file; publishing it is the caller's business. Texts become bytes of fixed length."""
    plain = [(name, np.char.encode(one, "utf-8") if one.dtype.kind == "U" else one) for name, one in columns]
    rows = np.zeros(len(plain[0][1]), dtype=[(name, one.dtype, one.shape[1:]) for name, one in plain])
    for name, one in plain:
        rows[name] = one
    with path.open("wb") as handle:
        np.save(handle, rows, allow_pickle=False)
