"""The list of jobs of a RELION project, ``default_pipeline.star``: ours are added to it, everything else stays as it is.

People run jobs of their own in the project while it grows, so the file belongs to RELION, and RELION's lock is honoured: the
folder ``.relion_lock``, which is made by whoever is changing the list.
"""

import logging
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from icestream.errors import FileFormatError, ItemError
from icestream.files import publish
from icestream.io.star import Table, read_star, write_star

_LIST = "default_pipeline.star"
_LOCK = ".relion_lock"
_LOCK_FILE = "lock_default_pipeline.star"
_OWN_LOCK = "icestream export_relion"
_TRIES = 40
_PAUSE_S = 0.25

Row = dict[str, str]


@dataclass(frozen=True)
class Job:
    """One job of the project.

    Types are the numbers RELION 3.1 gives to processes and nodes, and the words RELION 4 and later use instead. ``node`` is the
    file that later jobs are given in RELION 3.1, where it is not the main table. ``further`` are other files that later jobs may
    be given: name, type and word of each.
    """

    folder: str
    type: int
    type_label: str
    star: str
    node_type: int
    node_label: str
    node: str | None = None
    further: tuple[tuple[str, int, str], ...] = ()

    @property
    def path(self) -> str:
        """Return the job's main table, relative to the project."""
        return f"{self.folder}/{self.star}"

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the files that later jobs may be given, relative to the project."""
        return tuple(name for name, _, _ in self.typed_nodes)

    @property
    def typed_nodes(self) -> tuple[tuple[str, int, str], ...]:
        """Return these files with their types, as a number and as a word."""
        names = (self.path,) if self.node is None else (f"{self.folder}/{self.node}", self.path)
        own = tuple((name, self.node_type, self.node_label) for name in names)
        return own + tuple((f"{self.folder}/{name}", kind, label) for name, kind, label in self.further)

    @property
    def kind(self) -> str:
        """Return the folder of RELION's jobs of this kind."""
        return self.folder.partition("/")[0]


Jobs = Mapping[Job, Sequence[Job]]
"""Jobs, each with those that it was given the (first) file of."""


def add_jobs(tables: Mapping[str, Table], jobs: Jobs, *, next_number: int) -> dict[str, Table]:
    """Return the tables of a pipeline with ``jobs`` added, all succeeded.

    What the tables have already stays, whatever it says: jobs of other people, an alias, unknown columns. New rows have the
    columns of the table that they are added to.

    Parameters
    ----------
    next_number
        The least number that RELION may give to the next job.
    """
    counter = max(next_number, _counter(tables))
    processes = [_process_row(job) for job in jobs]
    nodes = [_node_row(*node) for job in jobs for node in job.typed_nodes]
    inputs = [_edge(f"{job.folder}/", source=given.nodes[0]) for job, sources in jobs.items() for given in sources]
    outputs = [_edge(f"{job.folder}/", target=name) for job in jobs for name in job.nodes]
    wanted: dict[str, tuple[list[Row], int, tuple[str, ...]]] = {
        "pipeline_processes": (
            processes,
            1,
            _columns(tables, "rlnPipeLineProcess", "Name Alias Type Status"),
        ),
        "pipeline_nodes": (nodes, 1, _columns(tables, "rlnPipeLineNode", "Name Type")),
        "pipeline_input_edges": (inputs, 2, ("rlnPipeLineEdgeFromNode", "rlnPipeLineEdgeProcess")),
        "pipeline_output_edges": (outputs, 2, ("rlnPipeLineEdgeProcess", "rlnPipeLineEdgeToNode")),
    }
    general = dict(tables["pipeline_general"].columns) if "pipeline_general" in tables else {}
    merged = {"pipeline_general": Table({**general, "rlnPipeLineJobCounter": [str(counter)]}, is_list=True)}
    merged |= {name: table for name, table in tables.items() if name != "pipeline_general"}
    for name, (rows, n_keys, columns) in wanted.items():
        merged[name] = _extend(tables.get(name), rows, columns=columns, n_keys=n_keys)
    return merged


def _counter(tables: Mapping[str, Table]) -> int:
    general = tables.get("pipeline_general")
    return int(general.ints("rlnPipeLineJobCounter")[0]) if general and "rlnPipeLineJobCounter" in general else 1


def _process_row(job: Job) -> Row:
    labels = {"TypeLabel": job.type_label, "StatusLabel": "Succeeded", "Type": str(job.type), "Status": "2"}
    return {f"rlnPipeLineProcess{key}": value for key, value in {"Name": f"{job.folder}/", "Alias": "None", **labels}.items()}


def _node_row(name: str, kind: int, label: str) -> Row:
    values = {"Name": name, "Type": str(kind), "TypeLabel": label, "TypeLabelDepth": "1"}
    return {f"rlnPipeLineNode{key}": value for key, value in values.items()}


def _edge(process: str, *, source: str = "", target: str = "") -> Row:
    return {"rlnPipeLineEdgeProcess": process, "rlnPipeLineEdgeFromNode": source, "rlnPipeLineEdgeToNode": target}


def _columns(tables: Mapping[str, Table], prefix: str, words: str) -> tuple[str, ...]:
    """Return the columns of a new table: numbers as in RELION 3.1, unless the file is one of a later RELION."""
    later = any("rlnPipeLineProcessTypeLabel" in table or "rlnPipeLineNodeTypeLabel" in table for table in tables.values())
    return tuple(f"{prefix}{word}{'Label' if later and word in ('Type', 'Status') else ''}" for word in words.split())


def _extend(table: Table | None, rows: Sequence[Row], *, columns: tuple[str, ...], n_keys: int) -> Table:
    """Return a table with those rows added whose first ``n_keys`` of ``columns`` it has not."""
    kept = dict(table.columns) if table is not None and table.columns else {name: [] for name in columns}
    keys = columns[:n_keys]
    known = set(zip(*(kept.get(key, []) for key in keys), strict=True))
    new = [row for row in rows if tuple(row[key] for key in keys) not in known]
    if table is not None and table.columns and not new:
        return table
    return Table({name: [*values, *(row.get(name, "None") for row in new)] for name, values in kept.items()})


def lists_jobs(project: Path, jobs: Jobs) -> bool:
    """Tell whether the project's list has these jobs and what they made; RELION may be writing it at this moment."""
    if not jobs:
        return True
    try:
        tables = read_star(project / _LIST) if (project / _LIST).is_file() else {}
        return all(
            table == tables.get(name)
            for name, table in add_jobs(tables, jobs, next_number=1).items()
            if table.columns and (len(table) or name in tables)
        )
    except (FileFormatError, ValueError):
        return False


def list_jobs(project: Path, jobs: Jobs, *, next_number: int) -> None:
    """Add jobs to the project's list under RELION's lock; leave it alone, and log that, while somebody else holds the lock.

    Raises
    ------
    ItemError
        The list cannot be read.
    """
    if lists_jobs(project, jobs):
        return
    with _locked(project) as locked:
        if not locked:
            logging.getLogger(__name__).warning(
                "%s: the RELION project is locked by another program; new jobs are listed with the next exposures",
                project / _LOCK,
            )
            return
        path = project / _LIST
        try:
            tables = read_star(path) if path.is_file() and path.stat().st_size else {}
            merged = add_jobs(tables, jobs, next_number=next_number)
        except (FileFormatError, ValueError) as error:
            raise ItemError(f"{path}: cannot be read as the list of RELION's jobs ({error}); mend or remove it") from error
        with publish(path) as temporary:
            write_star(temporary, {name: table for name, table in merged.items() if len(table)})


@contextmanager
def _locked(project: Path) -> Iterator[bool]:
    """Hold RELION's lock, if it is free within some seconds; one that an interrupted call of ours left is taken over."""
    lock = project / _LOCK
    mine = False
    for attempt in range(_TRIES):
        if _take(lock):
            mine = True
            break
        if attempt + 1 < _TRIES:
            time.sleep(_PAUSE_S)
    try:
        yield mine
    finally:
        if mine:
            (lock / _LOCK_FILE).unlink(missing_ok=True)
            lock.rmdir()


def _take(lock: Path) -> bool:
    file = lock / _LOCK_FILE
    try:
        lock.mkdir()
    except FileExistsError:
        return file.is_file() and file.read_text(encoding="utf-8", errors="replace").startswith(_OWN_LOCK)
    file.write_text(f"{_OWN_LOCK} on {socket.gethostname()}\n", encoding="utf-8")
    return True


def choose_number(project: Path, kind: str, *, note: str, first: int) -> int:
    """Return a number for a new job of ``kind``: that of the job with our ``note``, else ``first``, else one that is free."""
    jobs = [(path, int(path.name[3:])) for path in project.glob("*/job*") if path.name[3:].isdigit() and not path.is_symlink()]
    for path, number in jobs:
        written = path / "note.txt"
        if path.parent.name == kind and written.is_file() and written.read_text(encoding="utf-8", errors="replace") == note:
            return number
    taken = [number for _, number in jobs]
    if first not in taken:
        return first
    tables = read_star(project / _LIST) if (project / _LIST).is_file() else {}
    return max(_counter(tables), *(number + 1 for number in taken))
