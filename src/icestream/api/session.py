"""A session for people who write Python: its steps, their results as tables, and the files behind them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from icestream.api.frames import FrameKind, make_frame, to_arrays
from icestream.errors import SessionError
from icestream.flow.declaration import resolve_ref
from icestream.flow.storage import open_session
from icestream.io.blocks import from_block
from icestream.io.columns import write_columns
from icestream.io.image import image_header, read_image, read_stack
from icestream.observe.queries import StoredRecord, StoredSnapshot, open_view
from icestream.observe.tables import particle_arrays, result_columns

API_VERSION = "1.0"
"""Of what `icestream.api` exports: the first number grows where something was removed, the second where something was added."""

Rows = Literal["results", "particles", "removed"]
"""What the rows of a table are: exposures (or versions), particles or picks, or those of these that the step removed."""

_TABLES = {"particles": "block", "removed": "rejected"}


@dataclass(frozen=True)
class Step:
    """A step of the workflow, and how much it has decided.

    Attributes
    ----------
    name, use
        What the workflow calls it, and its type.
    params
        Its parameters, those that were not given included.
    record
        The type of its results; unset while there are none.
    revision
        How often its parameters were changed, from 1; unset until it has run.
    results, rejected, failed
        How many exposures it has decided in this way.
    """

    name: str
    use: str
    params: Mapping[str, Any]
    record: str | None
    revision: int | None
    results: int
    rejected: int
    failed: int


@dataclass(frozen=True)
class Result:
    """What a step made of one exposure, or one version of a whole such as class averages.

    Attributes
    ----------
    step, record, key
        The step, the type of the result, and the key that identifies it for good.
    exposure, exposure_id
        The name and the id of the exposure; unset for versions.
    version
        The number of the version; unset for exposures.
    values
        Every value of it; the reference of records says what each means, and its unit. Files stand there as ``root:path``.
    sequence
        A number that grows from result to result of a step; `Session.results` continues after it. Unset for versions.
    """

    step: str
    record: str
    key: str
    values: Mapping[str, Any]
    exposure: str | None = None
    exposure_id: str | None = None
    version: int | None = None
    sequence: int | None = None
    _folder: Path = field(default=Path(), repr=False, compare=False)

    def path(self, name: str) -> Path:
        """Return where the file is that the value ``name`` stands for, such as ``image`` or ``classes.0.map``.

        Raises
        ------
        SessionError
            There is no such value, or it is no file.
        """
        value: Any = self.values
        for part in name.split("."):
            if isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            else:
                value = value.get(part) if isinstance(value, Mapping) else None
        roots = open_session(self._folder).roots
        if not isinstance(value, str) or value.partition(":")[0] not in roots:
            raise SessionError(f"{self.step}: {name!r} is {value!r}, not a file; the values are {', '.join(self.values)}")
        return resolve_ref(roots, value)

    def read(self, name: str = "image") -> NDArray[Any]:
        """Return the file behind a value: an image ``(h, w)``, a stack or map ``(n, h, w)`` as float32, or a table of ``.npy``.

        Raises
        ------
        SessionError
            The value is no file.
        ItemError
            The file cannot be read, or has been removed.
        """
        path = self.path(name)
        if path.suffix == ".npy":
            table: NDArray[Any] = np.load(path, allow_pickle=False)
            return table
        return read_image(path) if image_header(path).n_images == 1 else read_stack(path)

    def tables(self) -> dict[str, NDArray[Any]]:
        """Return the tables of a result of picks or particles: ``block`` has them, ``rejected`` what the step removed."""
        with open_view(open_session(self._folder)) as view:
            return {name: from_block(block) for name, block in view.tables(self.key).items()}


class Session:
    """A session, for reading.

    Parameters
    ----------
    folder
        The folder of the session. It may be running; every call sees what has been stored by then.

    Raises
    ------
    SessionError
        There is no session in the folder.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).resolve()
        self.name: str = open_session(self.folder).document.name

    def __repr__(self) -> str:
        return f"Session({str(self.folder)!r})"

    def steps(self) -> list[Step]:
        """Return the steps in the order of the workflow."""
        with open_view(open_session(self.folder)) as view:
            return [
                Step(
                    one.name,
                    one.use,
                    one.params,
                    one.records.get("out"),
                    one.revision,
                    one.counts.item,
                    one.counts.rejected,
                    one.counts.failed,
                )
                for one in view.steps()
            ]

    def table(self, step: str, *, rows: Rows = "results", stream: str = "out", frame: FrameKind | None = None) -> Any:
        """Return the results of a step as a frame of pandas or polars, or as a dict of NumPy arrays where neither is installed.

        Parameters
        ----------
        rows
            ``results``: a row for each exposure, or for each version where the step publishes those. ``particles``: a row for
            each particle or pick; ``removed``: for each of those that the step itself removed.
        stream
            The output of the step, such as ``rejected`` for what a filter set aside.
        frame
            ``pandas``, ``polars`` or ``numpy``; unset: the first of these that is installed.

        Raises
        ------
        SessionError
            There is no such step, its results have no such rows, or the library is not installed.
        """
        return make_frame(self._arrays(step, rows, stream), frame)

    def _arrays(self, step: str, rows: Rows, stream: str) -> dict[str, NDArray[Any]]:
        if rows not in ("results", *_TABLES):
            raise SessionError(f"rows is {rows!r}; it must be results, {' or '.join(_TABLES)}")
        with open_view(open_session(self.folder)) as view:
            if rows == "results":
                return to_arrays(result_columns(view, step, output=stream))
            return particle_arrays(view, step, output=stream, table=_TABLES[rows])

    def write_parquet(self, step: str, path: Path | str, *, rows: Rows = "results", stream: str = "out") -> None:
        """Write the table of a step to a Parquet file, which appears when it is whole; for `table`'s parameters see there.

        Raises
        ------
        SessionError
            As `table`; or pyarrow is not installed.
        """
        columns = {name: _unset_as_none(values) for name, values in self._arrays(step, rows, stream).items()}
        write_columns(columns, Path(path), form="parquet")

    def results(self, step: str, *, stream: str = "out", after: int | None = None) -> Iterator[Result]:
        """Give the results of a step one by one, oldest first; after the sequence number ``after``, only what is newer."""
        with open_view(open_session(self.folder)) as view:
            for stored in view.records(step, output=stream, since_seq=after or 0):
                yield self._result(step, stored)

    def result(self, step: str, exposure: str, *, stream: str = "out") -> Result:
        """Return the result of a step for an exposure, by its name or id.

        Raises
        ------
        SessionError
            There is no such step or exposure, or no result.
        """
        with open_view(open_session(self.folder)) as view:
            (unit, *others) = view.choose([exposure])
            if others:
                raise SessionError(f"{exposure!r}: several exposures are called so; give the id of one")
            found = view.records_of(step, [unit], output=stream)
        if unit not in found:
            raise SessionError(f"{step}: has no result of {exposure} in {stream!r}")
        return self._result(step, found[unit])

    def versions(self, step: str) -> list[Result]:
        """Return the versions that a step has published, oldest first, without those whose files were removed."""
        with open_view(open_session(self.folder)) as view:
            found = [one for one in reversed(view.snapshots(step)) if one.record is not None and not one.pruned]
        return [self._version(one) for one in found]

    def _result(self, step: str, stored: StoredRecord) -> Result:
        return Result(
            step,
            stored.record_type,
            stored.key,
            stored.record,
            exposure=stored.name,
            exposure_id=stored.unit,
            sequence=stored.seq,
            _folder=self.folder,
        )

    def _version(self, stored: StoredSnapshot) -> Result:
        record = stored.record or {}
        return Result(stored.step, stored.record_type or "", stored.key, record, version=stored.version, _folder=self.folder)


def _unset_as_none(values: NDArray[Any]) -> list[Any]:
    if values.dtype.kind != "f":
        return list(values.tolist())
    return [None if np.isnan(value) else value for value in values.tolist()]
